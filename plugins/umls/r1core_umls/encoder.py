"""A name as a vector: the sum of what its words and their n-grams stand for, of length 1. Torch-free.

    e(name) = v / |v|,  v = sum over words, sum over features of the word, of E[feature]

So close names are those whose parts mean alike, whatever they share in letters: "renal" and "kidney" come to lie close,
because the synonyms that E was trained on (`training`) call one thing by both. Word order and negation are not seen.
"""

# B = buckets, D = width, N = names

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from r1core_umls.features import BUCKETS, Names, word_features

WIDTH = 512
BATCH = 4096  # names whose vectors are summed at a time
VECTORS_HELD = 8192  # recent words whose vectors are kept: 16 MB


class Encoder:
    """Encodes names.

    Parameters
    ----------
    weights : E, (B, D) float16; may be memory-mapped, so that only the rows in use take memory.
    """

    def __init__(self, weights: NDArray[np.float16]) -> None:
        if weights.ndim != 2 or len(weights) != BUCKETS:
            raise ValueError(f"expected weights of {BUCKETS} rows, found the shape {weights.shape}")
        self.weights = weights
        self._recent: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    @property
    def width(self) -> int:
        """D."""
        return self.weights.shape[1]

    def word(self, word: str) -> NDArray[np.float32]:
        """Return the sum of a normalised word's features, (D,); not of length 1."""
        found = self._recent.get(word)
        if found is None:
            found = self.weights[np.array(word_features(word))].sum(0, dtype=np.float32)
            self._recent[word] = found
            if len(self._recent) > VECTORS_HELD:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(word)
        return found

    def encode(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of names, (N, D), each of length 1; each distinct word is summed once."""
        out = np.empty((len(names), self.width), np.float32)
        if not names:
            return out
        cut = Names.of(names)
        words = np.stack([self.word(word) for word in cut.words])
        for first in range(0, len(out), BATCH):
            bags = cut.by_name.pick(np.arange(first, min(first + BATCH, len(out))))
            out[first : first + BATCH] = unit(np.add.reduceat(words[bags.values], bags.offsets[:-1]))
        return out


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors, (N, D), at length 1; a vector of zeros stays one."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float32))
    return vectors / np.maximum(length, 1e-12)[:, None]
