"""What the words around a medication without a dose hint at, where no cue of the other modules speaks of it.

Notes put one thing in many ways ("binned", "no joy with", "did nothing for her"); no list of cues holds them all. Words
that a taken medication seldom has about it, in its own clause, count against one that is named without a dose and
without a word of taking. A dose is written for what is to be taken: one that has it is not doubted.
"""

from __future__ import annotations

import re

from r1core_clinical_rules import cues
from r1core_clinical_rules.governing import Governed, Status

_STARTS = re.compile(
    r"[;:|,()]|\b(?:but|however|although|though|whereas|and|so|therefore|then|now|currently|who|which|since|because"
    r"|when|as)\b"
)
_ENDS = re.compile(
    r"[;:|,()]|\b(?:but|and|so|for|since|after|before|with|because|due|until|when|while|if|as|that|which|who|in|at|on"
    r"|per|via|despite|by|unless|without)\b"
)
_IF = re.compile(r"\bif\b|\b(?:unless|once|until) $")
_NEXT = re.compile(r"(?: (?:for|to|of|on|from|over|taking|using|his|her))* ?")


def doubted(sentence: str, one: Governed, begin: int, end: int) -> Status | None:
    """The status that the words of its clause hint at, None where nothing does; "denied" where it was thought of only.

    Parameters
    ----------
    begin, end : where the medication before it ends and the next one starts, or the sentence.
    """
    starts = [match.end() for match in _STARTS.finditer(sentence, begin, one.start)]
    clause, tail = sentence[starts[-1] if starts else begin : one.start], sentence[one.end : end]

    def of_next(at: int) -> bool:
        """Whether what ends here speaks of the next medication ("@, not taking @")."""
        return end < len(sentence) and _NEXT.fullmatch(tail, at) is not None

    if one.status == "considered":
        return "denied" if cues.REJECTED.search(tail) else None
    hint = cues.DOUBT.search(clause)
    if hint is None and (behind := cues.DOUBT_BEHIND.search(tail)) and not of_next(behind.end()):
        hint = behind
    if hint is None and not one.sure and not cues.TAKEN_AFTER.match(tail):
        if not cues.TAKEN_BEFORE.search(clause):
            hint = cues.DOUBT_BEFORE.search(clause)
        if hint is None and not _IF.search(clause):
            stop = _ENDS.search(tail, 1)
            said = cues.DOUBT_AFTER.search(tail[: stop.start() if stop else None])
            hint = None if said is None or of_next(said.end()) else said
    return None if hint is None else str(hint.lastgroup).rpartition("__")[0]  # type: ignore[return-value]
