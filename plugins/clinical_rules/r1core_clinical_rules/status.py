"""What a text says of a medication that it names: taken, stopped, denied, an allergy, another person's, or asked about.

Trigger phrases with a scope, after NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009). A trigger counts for
the medications behind it until the sentence ends, a "but" follows, or another trigger; some count for those right
before it ("aspirin was stopped"). English only. What no trigger speaks of is taken: an order names what it wants.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["current", "stopped", "denied", "allergy", "family", "considered"]

_TAKE = r"(?:take|taking|took|taken|use|using|used|receive|receiving|be on|being on|been on|on|have|had)"
_AGO = (
    r"last (?:year|month|week|spring|summer|autumn|fall|winter)|(?:years?|months?|weeks?|days) ago|in the past"
    r"|previously|years? back|as a child|in (?:19|20)\d\d|until (?:last|recently|(?:19|20)\d\d|\w+ (?:19|20)\d\d)"
)
_RELATIVE = (
    r"(?:grand)?(?:mother|father|parents?)|mom|dad|mum|wife|husband|spouse|partner|brother|sister|siblings?|aunt|uncle|cousin"
    r"|(?:grand)?(?:son|daughter)|children|neighbou?r|room-?mate|friend|family (?:history|member)|fhx?|colleague"
)
# Name -> pattern, in the order in which they are tried at a place. A name is `status` or `status_kind`; the kinds:
# `next`: for the medication right behind it, and what "and", "or" or a comma joins to that; `back`: for those right
# before it; `soft`: ends no other trigger within a clause; `past`: with a time gone by it means stopped.
_TRIGGERS = (
    ("end", r"[;!?\n]|\.(?=\s|$)(?<!\b[a-z]\.)|\b(?:but|however|although|though|whereas|despite)\b"),
    (
        "patient",
        r"\b(?:(?:the |this )?(?:patient|pt)|s?he(?: (?:himself|herself))?|who|himself"
        r"|herself)\b(?! ?'?s? (?:{r})\b)",
    ),
    (
        "reporter",
        r"\b(?:{r}) (?:reports?|says?|states?|notes?|confirms?|brought|called|asks?|wonders?|worries)\b",
    ),
    ("family", r"\b(?:(?:'s|his|her|the|their|whose) )?(?:{r})\b"),
    (
        "allergy_back",
        r"(?<=[a-z)] )(?:allerg(?:y|ies)|intolerances?|hypersensitivity|anaphylaxis)\b"
        r"(?! (?:to|with|of|after|from|on|list|include)\b|:)",
    ),
    (
        "allergy_back",
        r"(?<=[a-z])(?: ?[-:(] ?|: )(?:allergy|allergic|intoleran(?:ce|t)|hives|rash|anaphylaxis"
        r"|angioedema)\b",
    ),
    (
        "allergy_back",
        r"\b(?:causes?|caused|gave (?:him|her|them)|gives (?:him|her|them)) (?:\w+ )?(?:rash|hives"
        r"|anaphylaxis|angioedema|swelling|a reaction)\b",
    ),
    (
        "allergy",
        r"\b(?:allerg(?:y|ies|ic)(?: reactions?)?|nkda|hypersensitiv\w+|anaphyla\w+"
        r"|adverse reactions?)(?: (?:to|with|after|from))?:?",
    ),
    (
        "allergy",
        r"\b(?:intoleran(?:t|ces?)|sensitivit(?:y|ies)|reacted|reactions?|rash|hives|angioedema"
        r"|swelling) (?:of|to|with|from|after|on)\b",
    ),
    (
        "allergy",
        r"\b(?:cannot|can't|can not|could not|couldn't|unable to|does not|doesn't|did not|didn't) tolerate\b",
    ),
    (
        "allergy",
        r"\b(?:adrs?|adverse (?:drug )?(?:effects?|events?|reactions?)|reacts? (?:badly |poorly )?|side effects?)\b"
        r"(?: (?:to|with|of|from|after|on))?:?",
    ),
    (
        "denied",
        r"\b(?:(?:stay|keep|steer)(?:s|ed|ing)? (?:away|clear) (?:from|of)|kept away from"
        r"|(?:advis|warn)ed (?:against|off)|(?:told|asked|advised|warned) not to (?:\w+ )?"
        r"|no need (?:for|of)|free (?:of|from)|lacks?)\b",
    ),
    (
        "stopped",
        r"\b(?:ran out of|run out of|gave up|given up|came off|come off|went off|taken off|phased out|got off)\b",
    ),
    (
        "denied",
        r"\b(?:not|never|hasn't|haven't|isn't|wasn't|doesn't|don't|didn't|won't|cannot|can't|should not"
        r"|must not) (?:\w+ly |yet |to |be |been |being |want |wish |like )*(?:{t}|start\w*|given?"
        r"|prescrib\w+|add\w*|combin\w+|need\w*|consider\w*|recommend\w*|order\w*|mix\w*"
        r"|co-?prescrib\w+)(?: (?:on|with))?\b",
    ),
    (
        "denied",
        r"\b(?:denies|denied|denying|declin(?:es|ed|ing)|refus(?:es|ed|ing)|without|avoid(?:s|ed|ing)?"
        r"|neither|nor|instead of|rather than|in place of|in lieu of|never|contraindicat\w+|rul(?:e"
        r"|ed) out)(?: (?:any |{t}))?\b",
    ),
    (
        "denied_next",
        r"\b(?:no|not|non|nil)\b(?: (?:longer (?:on|takes?|taking|uses?|using|needs?|needing|receiv\w+"
        r"|prescribed)|(?:other |more |further |current |known |recent |regular |daily |home |concurrent "
        r"|concomitant |prior |new |any |a |an |on |use of |history of |otc |oral |longer )+))?-?",
    ),
    (
        "denied_back",
        r"-? ?free\b|\b(?:avoidance|(?:was|were|is|are|been) (?:declined|refused|avoided|not (?:given"
        r"|started|taken|used|prescribed|needed|indicated|ordered|an option))|not (?:given|started|taken"
        r"|used|prescribed|needed|indicated)|declined|refused)\b",
    ),
    (
        "stopped_back",
        r"\b(?:was|were|is|are|been|being|got|to be|now|has|have)(?: since| then| now| been"
        r"| already)* (?:stopped|discontinued|ceased|withdrawn|held|d/c'?d|dc'?d|finished|completed"
        r"|tapered off|weaned off)\b",
    ),
    (
        "stopped",
        r"\b(?:switch|chang|convert|transition)(?:e[sd]?|ed|ing)? (?:\w+ )?from\b|\breplac(?:e|es|ed|ing)\b",
    ),
    (
        "stopped",
        r"\b(?:stop(?:s|ped|ping)?|discontinu\w+|d/c(?:'?d|ed)?|dc'?d|ceas(?:e|ed|es|ing)|quit|withdr[ae]wn?"
        r"|held|hold(?:s|ing)?|off(?: of)?|wean\w*|taper\w*|finish(?:ed|ing)?|complet(?:ed"
        r"|ing))(?: (?:taking|using|a course of|(?:his|her|the|all|a|home|off) ?))*\b",
    ),
    (
        "stopped",
        r"\b(?:previous(?:ly)?|former(?:ly)?|used to|(?:was|were|had been) (?:previously |once )?(?:on"
        r"|taking|using|given|treated with|prescribed)|(?:past|prior|remote|previous) (?:\w+ )?(?:use"
        r"|history|course|trial|medications?|meds|therapy|treatment)(?: (?:of|with|includes?|included))?:?"
        r"|history of)(?: {t})?\b",
    ),
    (
        "considered",
        r"\b(?:consider(?:ing|ed)?|shall (?:i|we)|should (?:i|we|he|she)|could (?:i|we|he|she)|can (?:i|we"
        r"|he|she)|may (?:i|we|he|she)|thinking (?:of|about)|asks? (?:about|for|whether|if)"
        r"|wonders? (?:about|whether|if)|is it (?:ok|okay|safe) to|discuss\w*|options?(?: include| are)?:?"
        r"|would like to)\b",
    ),
    ("past", r"\b(?:took|tried|had|received|was given|used)\b"),
    ("soft", r"\b(?:taking|using|receiving|on|with|to|by)\b"),
    (
        "current",
        r"\b(?:(?:re)?start(?:s|ed|ing)?|(?:now|remains?|is|still|currently|presently|stable|maintained"
        r"|well controlled) (?:on|takes?|taking|uses?|using)|continu\w+|takes?|currently|presently|now"
        r"|add(?:s|ed|ing)?|prescri\w+|giv(?:e|es|en|ing)|order(?:s|ed)?|beg(?:in|ins|an|un)|initiat\w+"
        r"|uses?|receives?|resum\w+|increas\w+|decreas\w+|titrat\w+|(?:home |current |active )?(?:meds"
        r"|medications?|rx|prescriptions?)(?: list)?:?|plan:?|bridg\w+)\b",
    ),
    ("ago", r"\b(?:{a})\b"),
)  # fmt: skip
_BLANKS = {"r": _RELATIVE, "t": _TAKE, "a": _AGO}
_EVENT = re.compile(
    "|".join(
        f"(?P<{name}__{place}>{re.sub('[{]([rta])[}]', lambda m: _BLANKS[m[1]], pattern)})"
        for place, (name, pattern) in enumerate(_TRIGGERS)
    )
)
_LIST = re.compile(r"[\s,/&+-]*(?:(?:and|or|nor|any|other|the|a|an|his|her|all)\b[\s,/&+-]*)*(?:\([^)]*\)[\s,]*)?")
_DOSED = re.compile(r"\W{0,3}\d")
_QUESTION = re.compile(r"[^.;!?\n]*\?")
_DIRECT = 28  # characters that may lie between a medication and the trigger behind it


@dataclass(frozen=True, slots=True)
class _Event:
    start: int
    end: int
    name: str
    kind: str = ""


def statuses(text: str, spans: Sequence[tuple[int, int]]) -> list[Status]:
    """What a text (lower case) says of the medication in each span (start, end), in order of place."""
    events = _events(text, spans)
    found: list[Status] = ["current"] * len(spans)
    walk = _Walk(text, spans, found)
    waiting = 0
    for event in (*events, _Event(len(text), len(text), "end")):
        while waiting < len(spans) and spans[waiting][0] < event.start:
            walk.mention(waiting)
            waiting += 1
        walk.event(event)
    return found


def _events(text: str, spans: Sequence[tuple[int, int]]) -> list[_Event]:
    """The triggers outside of names."""
    found = []
    at = 0
    while (match := _EVENT.search(text, at)) is not None:
        name, _, kind = str(match.lastgroup).rpartition("__")[0].partition("_")
        at = max(match.end(), match.start() + 1)
        inside = next((end for start, end in spans if start < match.end() and match.start() < end), None)
        if inside is None:
            found.append(_Event(match.start(), match.end(), name, kind))
        elif match.start() < inside < match.end() or name == "end":
            at = inside
    return found


class _Walk:
    """One pass over triggers and medications, from left to right."""

    def __init__(self, text: str, spans: Sequence[tuple[int, int]], found: list[Status]) -> None:
        self._text, self._spans, self._found = text, spans, found
        self._status: Status = "current"
        self._next: int | None = None  # where a `next` trigger ended, or the last medication that it counts for
        self._past = self._family = False
        self._first = 0  # the first medication of this clause
        self._seen = 0

    def mention(self, place: int) -> None:
        """A medication: it has the status that holds here."""
        start, end = self._spans[place]
        self._seen = place + 1
        status: Status = self._status
        if self._next is not None:
            between = self._text[self._next : start]
            if _LIST.fullmatch(between):
                self._next, status = end, "denied"
            else:
                self._next = None
        if status in ("denied", "allergy") and place > self._first and self._dosed_again(place):
            status = self._status = "current"  # nobody gives the dose of what is not taken
        if self._family and status == "current":
            status = "family"
        if status == "current" and _QUESTION.match(self._text, end) and self._asks(start):
            status = "considered"
        self._found[place] = status

    def _dosed_again(self, place: int) -> bool:
        before = self._text[self._spans[place - 1][1] : self._spans[place][0]]
        return "," in before and _DOSED.match(self._text, self._spans[place][1]) is not None

    def _asks(self, at: int) -> bool:
        """Whether the question began with this medication's sentence as something to decide, as "aspirin or Advil?"."""
        begin = max(self._text.rfind(mark, 0, at) for mark in ".;!?\n") + 1
        return re.match(r"\s*(?:shall|should|could|can|may|would|is|which|what|ok)\b", self._text[begin:at]) is not None

    def event(self, event: _Event) -> None:
        """A trigger."""
        if event.name == "end":
            self._reset(family=self._text[event.start : event.end].isalpha() and self._family)
        elif event.name in ("patient", "reporter"):
            self._family = False
        elif event.name == "family":
            self._family = True
        elif event.kind == "back":
            self._backwards(event, event.name)  # type: ignore[arg-type]
        elif event.name == "ago":
            if self._past:
                self._backwards(event, "stopped")
            if self._past or self._status == "stopped":  # "stopped aspirin last year, warfarin 5 mg daily"
                self._status, self._past, self._first = "current", False, self._seen
        elif event.name == "past":
            self._past = True
            self._status = "current" if self._status in ("current", "considered") else self._status
        elif event.name == "soft":
            self._softly(event)
        elif event.kind == "next":
            self._next = event.end
        elif event.name == "stopped" and self._behind(event):
            self._backwards(event, "stopped")
        else:
            self._status, self._next, self._first = event.name, None, self._seen  # type: ignore[assignment]
            self._past = False

    def _softly(self, event: _Event) -> None:
        """ "on", "to", "with": takes up again what is taken, behind a comma or where something was replaced."""
        word = self._text[event.start : event.end]
        before = self._text[: event.start].rstrip()
        replaced = word in ("to", "with", "by") and self._status == "stopped" and self._seen > self._first
        if replaced or (word in ("on", "taking", "using") and before.endswith((",", " now", " and")) and self._seen):
            self._status, self._next, self._first = "current", None, self._seen

    def _behind(self, event: _Event) -> bool:
        """Whether "stopped" speaks of the medications before it: it stands behind one, and before none."""
        if self._seen == self._first or event.start - self._spans[self._seen - 1][1] > _DIRECT:
            return False
        before = self._text[self._spans[self._seen - 1][1] : event.start]
        later = self._spans[self._seen][0] if self._seen < len(self._spans) else None
        return "," not in before and (later is None or not _LIST.fullmatch(self._text[event.end : later]))

    def _backwards(self, event: _Event, status: Status) -> None:
        """Give a status to the medications right before a trigger, as far back as a list of them goes."""
        place, until = self._seen - 1, event.start
        reach = 60 if event.name == "ago" else _DIRECT
        while place >= self._first and until - self._spans[place][1] <= reach:
            gap = self._text[self._spans[place][1] : until]
            if place < self._seen - 1 and not _LIST.fullmatch(gap):
                break
            self._found[place] = status
            until, place, reach = self._spans[place][0], place - 1, _DIRECT

    def _reset(self, *, family: bool) -> None:
        self._status, self._next, self._past, self._family = "current", None, False, family
        self._first = self._seen
