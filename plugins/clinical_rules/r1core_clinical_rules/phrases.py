"""Required phrases as a byte automaton: the text may not end before every one of them stands in it, word by word.

The inner state is (progress in the phrases, which of them stand). No byte is refused: what is refused is the end.
"""

# A = symbols, N = Aho-Corasick states

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import ALPHABET, BOUNDARY, normalise, spell
from r1core_clinical_rules.outcome import Phrase
from r1core_clinical_rules.symbol_automaton import BLANK, CODE, SEP, SymbolAutomaton

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
        matcher = AhoCorasick([[CODE[c] for c in pattern] for pattern in patterns], len(ALPHABET))
        completes = [reduce(or_, (1 << worded[i][0] for i in out), 0) for out in matcher.outputs]
        self._completes = np.array(completes, dtype=np.int64)
        self._next = matcher.next.astype(np.int64)
        after = np.flatnonzero(matcher.last == SEP)
        self._next[after, SEP] = after  # a run of boundaries, white space or not, is one
        self._next[:, BLANK] = self._next[:, SEP]
        super().__init__(begin=int(self._next[0, SEP]) << len(phrases))  # the text begins at a boundary

    def _after(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        after = self._next[inner >> len(self._phrases), codes]
        return after << len(self._phrases) | inner & self._every | self._completes[after]

    def _missing(self, state: int) -> list[Phrase]:
        """The phrases that would be missing if the text ended here: the end is a boundary."""
        standing = int(self._after(np.array([self.inner_of(state)]), np.array([SEP]))[0])
        return [phrase for place, phrase in enumerate(self._phrases) if not standing >> place & 1]

    def may_end(self, state: int) -> bool:
        """Whether every phrase stands."""
        return not self._missing(state)

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The rules whose phrase is missing where the text would end (b""); () for any other data."""
        return () if data else tuple(reason for phrase in self._missing(state) for reason in phrase.reasons)
