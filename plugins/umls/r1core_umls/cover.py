"""How far a mention and the names of a concept say the same, word by word: what tells a finding from any other chunk.

The ranker's probability compares concepts with each other, so "skull" has a probable concept too. Here each word of the
mention is compared with the words of a name by the encoder's cosine and counts by its best match, and the other way
round (the precision and recall of Zhang et al. 2020, "BERTScore", section 3, unweighted); their harmonic mean is low
where the name says more than the mention ("Abnormal skull morphology") or less.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import unit
from r1core_umls.features import words_of

if TYPE_CHECKING:
    from r1core_umls.encoder import Encoder
    from r1core_umls.knowledge import KnowledgeBase

WORDS_HELD, NAMES_HELD = 65536, 4096  # recent words (1 KB each) and names
_SMALL = frozenset({"of", "the", "in", "a", "an", "and", "or", "on", "to", "with", "by", "at", "from", "his", "her"})
Array = NDArray[np.float32]


class Cover:
    """Compares mentions with the concepts of a base. D = the encoder's width."""

    def __init__(self, encoder: Encoder, base: KnowledgeBase) -> None:
        self._base = base
        self._word = lru_cache(WORDS_HELD)(lambda word: unit(encoder.word(word)[None])[0].astype(np.float32))
        self._name = lru_cache(NAMES_HELD)(lambda name: self._vectors(base.surface(name)))

    def of(self, mention: str, position: int) -> float:
        """Return, in [0, 1], how far a mention and the closest name of the concept at a position cover each other."""
        asked = self._vectors(mention)
        names = (self._name(name) for name in self._base.names_of(position))
        return max((_both(asked @ name.T) for name in names if len(asked) and len(name)), default=0.0)

    def _vectors(self, text: str) -> Array:
        """The words' vectors, (words, D), each of length 1."""
        words = [word for word in words_of(text) if word not in _SMALL]
        return np.stack([self._word(word) for word in words]) if words else np.zeros((0, 1), np.float32)


def _both(cosines: Array) -> float:
    """Harmonic mean of the mean best match of the rows and of the columns; 0 where one is not above 0."""
    forth, back = float(cosines.max(1).mean()), float(cosines.max(0).mean())
    return min(2 * forth * back / (forth + back), 1.0) if min(forth, back) > 0 else 0.0
