"""Which cue before a medication governs it: one pass over a sentence, from left to right.

A cue governs the next medication and what is listed with it, until a comma, a conjunction or another verb takes over.
A "not" turns a stop round ("do not stop"), and so does "wants to". A cue with a noun of its own ("stop smoking while
on") governs nothing behind that noun. What stands behind a medication is read by `status.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from r1core_clinical_rules import context, cues

Status = Literal["current", "stopped", "denied", "allergy", "family", "considered", "hypothetical"]

IN_LIST = re.compile(rf"(?:\s*\([^()]*\))?{cues.LIST}")  # what joins the medications of a list
_PREDICATES = ("stop", "avoid", "deny", "fail", "allergy", "reaction", "past")


@dataclass(frozen=True, slots=True)
class Governed:
    """A medication of a sentence (at its characters `start` to `end`) and what the cues before it say."""

    start: int
    end: int
    status: Status
    past: bool  # a verb like "took" stands before it
    dosed: bool
    sure: bool  # a "not" before it means that it is taken ("do not stop", "no rash with")


def governed(sentence: str) -> list[Governed]:
    """The medications of a sentence in order of place."""
    return _Walk(sentence).walk()


@dataclass(slots=True)
class _Walk:
    """The state of the pass. Every kind of cue in `cues.toml` has a method of its name."""

    text: str
    status: Status = "current"
    kind: str = ""  # of the cue that governs; "" where none does
    end: int = 0  # where that cue ends
    seen: int = 0  # medications since that cue
    negated: int | None = None  # where a "not" ended that nothing has used yet
    intent: int | None = None  # where "wants to" ended
    last_not: int | None = None  # where the last "not" ended, used or not
    family: bool = False  # another person is spoken of
    named: bool = False  # a medication of that person has been named, or it is a family history
    past: int | None = None  # where a verb like "took" ended
    ago: bool = False  # a time gone by has been named
    sure: bool = False  # the last cue was turned round
    found: list[Governed] = field(default_factory=list)

    def walk(self) -> list[Governed]:
        """The medications in order of place."""
        for match in cues.BEFORE.finditer(self.text):
            name = str(match.lastgroup).rpartition("__")[0]
            if name in _PREDICATES and self._behind(match.start(), match.end()):
                continue
            getattr(self, f"_{name}")(match.start(), match.end())
        return self.found

    def _behind(self, start: int, end: int) -> bool:
        """Whether a cue is said of the medication before it ("avoided" in "@ avoided and # chosen")."""
        return (
            bool(self.found)
            and context.PREDICATE.fullmatch(self.text, self.found[-1].end, start) is not None
            and context.OBJECT.match(self.text, end) is None
        )

    def _govern(self, status: Status, kind: str, end: int) -> None:
        self.status, self.kind, self.end, self.seen, self.negated = status, kind, end, 0, None
        self.sure = False

    def _reset(self, end: int, *, sure: bool = False) -> None:
        self._govern("current", "", end)
        self.sure = sure

    def _turned(self, start: int, *, intent: bool = True) -> bool:
        """Whether a "not" or a "wants to" right before this place turns round what stands here."""
        marks = [mark for mark in (self.negated, self.intent if intent else None) if mark is not None and mark <= start]
        return bool(marks) and self.seen == 0 and context.CLOSE.fullmatch(self.text, max(marks), start) is not None

    def _content(self, start: int) -> bool:
        """Whether the cue that governs has a noun of its own before this place ("stop smoking while on")."""
        return cues.CONTENT.search(self.text, self.end, start) is not None

    def _mention(self, start: int, end: int) -> None:
        dosed = self.text[start] == "#"
        if self.kind == "deny" and not self.seen and dosed and "," in self.text[self.end : start]:
            self._reset(start)
        if dosed and self.kind == "reaction":
            self._reset(start)  # "some swelling with", and taken with a dose
        if self.seen and self.kind not in ("", "header"):
            last = self.found[-1]
            between = self.text[max(last.end, self.end) : start]
            if not IN_LIST.fullmatch(between) or (dosed and not last.dosed and "," in between):
                self._reset(start)  # nobody gives the dose of what is not taken
        past = self.past is not None and cues.CONTENT.search(self.text, self.past, start) is None
        status = self.status
        if status == "current" and past and self.ago:
            status = "stopped"
        if self.family and status in ("current", "considered"):
            status = "family"
        self.found.append(Governed(start, end, status, past, dosed, self.sure))
        self.seen += 1
        self.named, self.intent = True, None

    def _semicolon(self, start: int, end: int) -> None:
        if self.kind != "header":  # "Allergies: penicillin; aspirin"
            self._reset(end)
        self.family, self.past, self.ago = False, None, False
        self.intent = None

    def _contrast(self, start: int, end: int) -> None:
        self._reset(end)
        self.past, self.intent = None, None

    def _comma(self, start: int, end: int) -> None:
        if not self.named and not self.text.startswith(" who ", end):
            self.family = False  # "lives with her husband, takes"
        if self.seen or self.kind in ("", "header", "deny"):
            return
        bare = start == self.end and self.text[start] == ","  # "instead, start"
        if bare or self.kind == "replace" or self._content(start):
            self._reset(end)

    def _reporter(self, start: int, end: int) -> None:
        self.family = False

    _patient = _reporter

    def _family(self, start: int, end: int) -> None:
        self.family, self.named = True, "history" in self.text[start:end]

    def _allergies(self, start: int, end: int) -> None:
        self._govern("allergy", "header", end)

    def _gone(self, start: int, end: int) -> None:
        self._govern("stopped", "header", end)

    def _list(self, start: int, end: int) -> None:
        self._reset(end)

    def _allergy(self, start: int, end: int) -> None:
        if self._turned(start):
            self._reset(end, sure=True)
        else:
            self._govern("allergy", "header" if self.kind == "header" else "allergy", end)

    def _reaction(self, start: int, end: int) -> None:
        self._allergy(start, end)
        self.kind = "reaction" if self.kind == "allergy" else self.kind

    def _nothing(self, start: int, end: int) -> None:
        if self.kind == "header":
            self._reset(end)

    def _replace(self, start: int, end: int) -> None:
        self._govern("denied", "replace", end)

    def _miss(self, start: int, end: int) -> None:
        self._reset(end, sure=True)

    def _stop(self, start: int, end: int, status: Status = "stopped") -> None:
        # who considers stopping it, or wants to, takes it; who wants to avoid it does not
        thought_of = self.kind == "hypothetical" and not self.seen and not context.PROPOSED.search(self.text, 0, start)
        thought_of = thought_of and status == "stopped"
        # "if he bleeds, stop"
        held = context.BASE_FORM.match(self.text[start:end]) and context.CONDITION.search(self.text, 0, start)
        if held or self._turned(start, intent=status == "stopped") or thought_of:
            self._reset(end, sure=True)
        else:
            self._govern(status, "stop", end)

    def _avoid(self, start: int, end: int) -> None:
        self._stop(start, end, "denied")

    def _fail(self, start: int, end: int) -> None:
        if (
            self.found
            and context.PREDICATE.fullmatch(self.text, self.found[-1].end, start)
            and context.REASON.search(self.text, 0, self.found[-1].start)
        ):
            return  # "where @ failed # has succeeded"
        self._govern("stopped", "fail", end)

    def _hypothetical(self, start: int, end: int) -> None:
        if not (self.negated is not None and self._turned(start)):
            self._govern("hypothetical", "hypothetical", end)

    def _considered(self, start: int, end: int) -> None:
        if not (self.negated is not None and self._turned(start)) and self.kind != "hypothetical":
            self._govern("considered", "hypothetical", end)

    def _past(self, start: int, end: int) -> None:
        if not (self.negated is not None and self._turned(start)):
            self._govern("stopped", "past", end)
        self.past = end

    def _last(self, start: int, end: int) -> None:
        self._reset(end, sure=True)
        self.past = end

    def _ago(self, start: int, end: int) -> None:
        self.ago = True

    def _alter(self, start: int, end: int) -> None:
        if not self.seen and self.kind in ("not", "deny", "hypothetical"):
            self._reset(end, sure=True)  # who does not increase a dose takes it
        else:
            self._take(start, end)

    def _intent(self, start: int, end: int) -> None:
        self.intent = end
        self._take(start, end)

    def _deny(self, start: int, end: int) -> None:
        self._not(start, end)
        self.kind = self.kind and "deny"

    def _not(self, start: int, end: int) -> None:
        if context.BUT_NOT.search(self.text, 0, start):
            self._reset(end, sure=True)  # "stopped his statin but not"
            return
        if context.IF_NOT.search(self.text, max(0, start - 24), start):
            self._reset(end, sure=True)  # "if I do not have it I can not walk"
            return
        if start == 0 and context.WERE_IT_NOT.match(self.text):
            self._reset(end, sure=True)  # "without it she is housebound"
            return
        before = self.last_not if self.text.startswith("without", start) else self.negated
        if self.text.startswith("without", start) and context.NEEDED.search(self.text, 0, start):
            before = start
        if before is not None and not self.seen and context.CLOSE.fullmatch(self.text, before, start):
            self._reset(end, sure=True)  # "cannot sleep without", "no need to avoid"
        else:
            self._govern("denied", "not", end)
            self.negated = end
        self.last_not = end

    def _except(self, start: int, end: int) -> None:
        if context.REACTIONS.search(self.text, 0, start):
            self._govern("allergy", "allergy", end)  # "no known allergies except to"
        elif self.status != "allergy":
            self._reset(end, sure=True)  # "no medicines other than"

    def _effect(self, start: int, end: int, *, sure: bool = True) -> None:
        if self.negated is not None and self.seen == 0 and context.CLOSE.fullmatch(self.text, self.negated, start):
            self._reset(end, sure=sure)

    def _benefit(self, start: int, end: int) -> None:
        self._effect(start, end, sure=False)  # without effect, it may be taken or not

    def _take(self, start: int, end: int) -> None:
        if not self.kind:
            return
        if self.seen == 0:
            own = self.kind not in ("header", "not", "deny") and self._content(start)
            if own or (self.kind != "header" and context.TURN.search(self.text, self.end, start)):
                self._reset(end)
        elif re.fullmatch(r"\s*(?:or|nor)\s*", self.text[self.found[-1].end : start]):
            self.end = end
        else:
            self._reset(end)

    def _persist(self, start: int, end: int) -> None:
        if self.status == "considered" and not self.seen:
            self._reset(end)  # "I would suggest that she remains on"
        else:
            self._take(start, end)

    def _past_verb(self, start: int, end: int) -> None:
        self.past = end
        self._take(start, end)

    def _with(self, start: int, end: int) -> None:
        bare = self.kind == "stop" and not self.text[self.end : start].strip()  # "vomiting has stopped on"
        on = self.text[start:end] in ("on", "onto")
        thought_of = self.kind == "hypothetical" and not on
        if self.seen:
            anew = on and self.text[:start].rstrip().endswith((",", ";", "|", " and"))
        else:
            anew = self.kind not in ("", "header") and not thought_of and (bare or self._content(start))
        if anew or (self.text[start:end] == "onto" and self.kind == "stop" and not self.seen):
            self._reset(end, sure=self.kind == "stop" or self.text.endswith("no", 0, self.end))

    def _joint(self, start: int, end: int) -> None:
        if (
            self.seen == 0
            and self.kind not in ("", "header")
            and (self._content(start) or context.IT.search(self.text, self.end, start))
        ):
            self._reset(end)  # "told not to take it because"
