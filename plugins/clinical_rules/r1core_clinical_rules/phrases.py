"""Required phrases as a byte automaton: the text may not end before every one of them stands in it, word by word.

The inner state is (progress in the phrases, which of them stand). No byte is refused: what is refused is the end.
"""

# C = classes of characters, N = Aho-Corasick states, K = automaton states asked for at once

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.characters import BOUNDARY, normalise, spell
from r1core_clinical_rules.outcome import Phrase
from r1core_clinical_rules.symbol_automaton import SEP, SymbolAutomaton, class_codes, matcher_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PHRASES = 24  # each doubles the states that can be; an answer that has to hold more is not written in one go


class RequiredPhrases(SymbolAutomaton):
    """Lets a text end only where one wording of every phrase stands in it; implements `api.ByteAutomaton`.

    Raises
    ------
    ValueError : for more than `MAX_PHRASES` phrases, or one without any letter or digit.
    """

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        if len(phrases) > MAX_PHRASES:
            raise ValueError(f"{len(phrases)} phrases, at most {MAX_PHRASES} can be required at once")
        worded = [(place, text) for place, phrase in enumerate(phrases) for text in phrase.any]
        if not all(normalise(text) for _, text in worded):
            raise ValueError("a required phrase holds no letter or digit")
        self._phrases, self._every = tuple(phrases), (1 << len(phrases)) - 1
        patterns = [f"{BOUNDARY}{spell(text).strip(BOUNDARY)}{BOUNDARY}" for _, text in worded]
        self._matcher = matcher_of(patterns)
        completes = [reduce(or_, (1 << worded[i][0] for i in out), 0) for out in self._matcher.outputs]
        self._next, self._found = _steps(self._matcher.next, np.array(completes, dtype=np.int64))
        begin = int(self._matcher.next[0, SEP]) << len(phrases)  # the text begins at a boundary
        super().__init__(len(self._matcher.next) << len(phrases), begin)

    def _by_class(self, inner: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        matched, standing = (inner >> len(self._phrases))[:, None], (inner & self._every)[:, None]
        found: NDArray[np.int64] = self._next[matched, classes].astype(np.int64) << len(self._phrases)
        return found | standing | self._found[matched, classes]

    def _missing(self, state: int) -> list[Phrase]:
        """The phrases that would be missing if the text ended here: the end is a boundary."""
        inner = self._parts(state)[1]
        standing = (inner & self._every) | int(self._found[inner >> len(self._phrases), 0])
        return [phrase for place, phrase in enumerate(self._phrases) if not standing >> place & 1]

    def may_end(self, state: int) -> bool:
        """Whether every phrase stands."""
        return not self._missing(state)

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The rules whose phrase is missing where the text would end (b""); () for any other data."""
        return () if data else tuple(reason for phrase in self._missing(state) for reason in phrase.reasons)


def _steps(following: NDArray[np.int32], completes: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(N, C) the state after a character of each class, and the phrases that were completed on the way."""
    codes = class_codes()
    step = np.repeat(np.arange(len(following), dtype=np.int32)[:, None], codes.shape[1], axis=1)
    found = np.zeros(step.shape, dtype=np.int64)
    for row in codes:
        moved = following[step, row]
        found |= completes[moved]
        step = moved
    return step, found
