"""What a text says of a medication that it names: taken, stopped, denied, an allergy, another person's, only spoken of.

After NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009): cues before a medication govern it and what is
listed with it, until a comma, a conjunction or another verb takes over; a refusal or a "not" turns a stop round ("do
not stop"). What is said of it behind it comes later and wins ("held, restarted"). One medication in the place of
another ("switched from one to the other") is read by its direction. English only. What no cue speaks of is taken, save
where it has no dose and the words about it speak against that (`doubt.py`): an order names what it wants, and a warning
too many is better than one too few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from r1core_clinical_rules import context, cues
from r1core_clinical_rules.doubt import doubted
from r1core_clinical_rules.governing import IN_LIST, Governed, Status, governed
from r1core_clinical_rules.substitution import ALONE, substituted

_ABBREVIATED = "".join(
    rf"(?<!\b{word}\.)" for word in ("[a-z]", "dr", "mr", "mrs", "ms", "tab", "cap", "inj", "incl", "vs")
)
_END = re.compile(rf"\n|!|\.(?=\s|$)(?:(?<=/[a-z]\.)|{_ABBREVIATED})|\?(?!\s*(?:no|none|never|denies)\b)")
_OPENS = re.compile(r"\s*(?:shall|should|could|can|may|would|is|which|what|ok)\b")
_BREAK = re.compile(r"[,;:|(]|\b(?:and|but|so|because|before|after|when|while|though|although|yet|since|which|that)\b")
_OWN = re.compile(
    r"[,;|)]|\b(?:and|but|so|while|then|now|because|as|when|yet|though|although|before|after|since|until|due|for)\b"
)
_TRIED = re.compile(r"\b(?:tried|trial(?:l)?(?:ed)?|used|taken|given|received|had|last (?:re)?(?:filled|issued))\b")
_COUNT = re.compile(r"\b(?:once|about|approximately|nearly|one|two|three|four|five|six|seven|eight|nine|ten)\b|~")
_UNDONE = ("stopped", "denied", "considered", "hypothetical")  # what a later "restarted" undoes
_AND = re.compile(r"\b(?:and|or|nor)\b|[&/+]")
_SAYS = re.compile(
    r"\b(?:explain\w*|said|says|told|tells|stat\w+|not\w+|agree\w*|advis\w+|clear|sure|aware|report\w*|feels?|felt"
    r"|think\w*|thought|decided|him|her|them|patient|pt|me) that\s*$"
)
_POLITE = re.compile(
    r"\s*(?:could|can|would|will) (?:you|gp)\b.*\b(?:please|kindly|issue|prescribe|continue|supply|add|arrange)\b"
)
_TO_STOP = re.compile(r"\b(?:to|will|should|can) (?:stop|discontinue|cease|finish)(?: taking)? $")
_COURSE = re.compile(r"\b(?:courses?|trials?) of $")
_SINCE = re.compile(r"\b(?:as|because|since|and)\b")
_WHY = re.compile(r"\b(?:because|after|since|following|post|due to|missed)\b")
_PASSIVE = re.compile(r"\b(?:was|were|is|are|been|being|be) (?:\w+ly )?$")
_AT_ONCE = re.compile(r"(?: (?:for|to|of|on|from|taking|using))? ?$")
_BEGUN = re.compile(  # what began or changed at a time gone by goes on, and what is for an illness of that time may
    r"\b(?:(?:re)?start\w*|resum\w+|increas\w+|decreas\w+|add(?:ed|ing)?|beg[au]n|initiated|prescribed|since|refilled"
    r"|renewed|takes|taking|for|p(?:ut|laced) (?:him|her|them|pt|patient)? ?on|was started|switched|changed|commenced"
    r"|introduced|settled on|established|taper\w*)\b"
)


def statuses(text: str, spans: Sequence[tuple[int, int]]) -> list[Status]:
    """What a text (lower case) says of the medication in each span (start, end), in order of place."""
    found: list[Status] = []
    for sentence, asked in _sentences(text, spans):
        found += _read(sentence, asked=asked)
    return found


def _sentences(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """The sentences that name a medication, each medication one character, and whether a sentence asks."""
    parts, at = [], 0
    for place, (start, end) in enumerate(spans):
        following = spans[place + 1][0] if place + 1 < len(spans) else len(text)
        dose = cues.DOSE.match(text, end, following)
        parts += [_plain(text[at:start]), "#" if dose else "@"]
        at = dose.end() if dose else end
        form = cues.FORM.match(text, at, following)
        at = form.end() if form else at
    masked = "".join((*parts, _plain(text[at:])))
    at = 0
    while at < len(masked):
        stop = _END.search(masked, at)
        sentence, at = masked[at : stop.start() if stop else None], stop.end() if stop else len(masked)
        if "@" in sentence or "#" in sentence:
            yield cues.written_out(sentence), stop is not None and stop[0] == "?"


def _plain(text: str) -> str:
    return text.replace("@", " ").replace("#", " ")


def _read(sentence: str, *, asked: bool) -> list[Status]:
    """The status of each medication of one sentence."""
    named = governed(sentence)
    said = _said(sentence, named)
    swapped = substituted(sentence, [one.start for one in named])
    found: list[Status] = []
    for place, one in enumerate(named):
        status, later = swapped.get(place, one.status), said[place]
        if later == "current":
            status = "current" if status in _UNDONE and place not in swapped else status
        elif later is not None and status not in ("family", "allergy"):
            status = later
        if status in ("current", "considered") and later is None and not one.dosed and place not in swapped:
            begin = named[place - 1].end if place else 0
            end = named[place + 1].start if place + 1 < len(named) else len(sentence)
            status = doubted(sentence, one, begin, end) or status
        if status == "current" and asked and _OPENS.match(sentence) and not _POLITE.match(sentence):
            status = "considered"
        found.append(status)
    if ALONE.search(sentence):  # "bridged with heparin, now warfarin alone"
        found[:-1] = ["stopped" if status == "current" else status for status in found[:-1]]
    return found


def _said(sentence: str, named: Sequence[Governed]) -> list[Status | None]:
    """What is said of each medication behind it."""
    ends = [one.start for one in named[1:]] + [len(sentence)]
    said = [_said_after(sentence, one, end) for one, end in zip(named, ends, strict=True)]
    for place in range(len(named) - 2, -1, -1):  # "aspirin and ibuprofen were stopped"
        one, between = named[place], (named[place].end, named[place + 1].start)
        # "takes aspirin, ibuprofen should be avoided" is no list
        joined = IN_LIST.fullmatch(sentence, *between) and (place + 2 < len(named) or _AND.search(sentence, *between))
        plain = one.status == "current" and not one.dosed and said[place] is None
        if joined and plain and said[place + 1] != "current":
            said[place] = said[place + 1]
    return said


def _said_after(sentence: str, one: Governed, end: int) -> Status | None:
    """What is said of a medication between itself and the next one or the end; what is said last counts."""
    tail = sentence[one.end : end]
    found: Status | None = None
    for match in cues.AFTER.finditer(tail):
        name = str(match.lastgroup).rpartition("__")[0]
        of_next = end < len(sentence) and _about_next(tail, match.start(), match.end(), name)
        if not of_next and _about_it(tail, match.start(), name):
            found = _meaning(name, sentence, one, tail[: match.start()]) or found
    return found


def _about_it(tail: str, start: int, name: str) -> bool:
    """Whether a cue behind a medication speaks of it: nothing else stands between that could be meant."""
    turns = [turn.end() for turn in _BREAK.finditer(tail, 0, start)]
    segment = tail[turns[-1] if turns else 0 : start]
    if name == "error" and not turns:
        return True
    if name == "ago":
        segment = _COUNT.sub("", _TRIED.sub("", segment))
    turn = tail[: turns[-1]] if turns else ""
    if re.search(r"\w\W+\w+\W+(?:which|that)\s*$", turn) and not _SAYS.search(turn):
        return False  # "for headaches that stopped"
    return cues.SPEAKS.fullmatch(segment) is not None


def _about_next(tail: str, start: int, end: int, name: str) -> bool:
    """Whether a cue before another medication governs that one ("stop" in "@, stop @")."""
    if name in ("failed", "allergy"):
        return False
    if _AT_ONCE.match(tail, end):
        return True
    if name == "current" and _PASSIVE.search(tail, 0, start):
        return False
    return name != "ago" and _OWN.search(tail, end) is None


def _meaning(name: str, sentence: str, one: Governed, before: str) -> Status | None:
    """The status that a cue behind a medication gives it; None where it gives none."""
    past = one.past or (_TRIED.search(before) is not None and not _SINCE.search(before))
    if name == "allergy":
        return None if one.dosed else "allergy"  # a dosed one is taken for the rash
    if name == "when":  # "to stop it when the course is over"
        return "current" if one.dosed and _TO_STOP.search(sentence, 0, one.start) else None
    if name == "failed":  # "moved to another after it failed", "a course of it without benefit"
        return (
            "stopped"
            if past or context.REASON.search(sentence, 0, one.start) or _COURSE.search(sentence, 0, one.start)
            else None
        )
    if name == "month":
        return "stopped" if past and not one.dosed else None
    if name == "ago":
        if (one.sure and not one.past) or _WHY.search(before):
            return None  # "on it because of a stroke two years ago"
        begun = _BEGUN.search(sentence, max(0, one.start - 24), one.end) or _BEGUN.search(before)
        return "stopped" if past or (one.status == "current" and not begun and not one.dosed) else None
    if name == "ran_out":
        return None if re.search(r"\b(?:refill|renew|new (?:rx|script|prescription))", sentence) else "stopped"
    if name == "condition":  # "stop it if a rash occurs": it is taken until then
        return "current" if one.status == "stopped" else "hypothetical" if one.status == "considered" else None
    if name == "if":
        return "hypothetical" if one.status == "considered" else None
    if name == "hypothetical":
        return "hypothetical" if one.status == "considered" or (one.status == "current" and not one.dosed) else None
    return None if name in ("hold_if", "course") else "denied" if name == "error" else name  # type: ignore[return-value]
