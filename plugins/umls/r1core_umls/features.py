"""What the encoder sees of a name: its words and their 3- to 5-grams, hashed into a fixed number of buckets.

Words are in the normal form of `names` (case, accents, plurals gone) and stand for themselves wherever they are: word
order is not seen. Torch-free.
"""

# F = features

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from r1core_umls.names import tokenise

BUCKETS = 1 << 17
GRAMS = (3, 4, 5)
WORDS_HELD = 65536  # recent words whose features are kept: tens of MB


@lru_cache(WORDS_HELD)
def word_features(word: str) -> tuple[int, ...]:
    """Return the buckets of a normalised word: itself, then the character n-grams of `<word>`."""
    framed = f"<{word}>"
    grams = [framed[at : at + size] for size in GRAMS for at in range(len(framed) - size + 1)]
    return tuple(crc32(text.encode()) % BUCKETS for text in (f"word {word}", *grams))


def words_of(name: str) -> list[str]:
    """Return the normalised words of a name; a name without a letter or digit is one word, as it stands."""
    return tokenise(name).norms or [name]


@dataclass(frozen=True, slots=True)
class Bags:
    """Sequences of numbers, one behind the other: `values[offsets[i] : offsets[i + 1]]` is the i-th. Both int64."""

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Bags:
        """Join lists."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(one) for one in lists], out=offsets[1:])
        return cls(np.fromiter((value for one in lists for value in one), np.int64, int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def pick(self, which: NDArray[np.int64]) -> Bags:
        """Return some of the lists, in this order."""
        sizes = self.offsets[which + 1] - self.offsets[which]
        offsets = np.zeros(len(which) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return Bags(self.values[np.repeat(self.offsets[which], sizes) + inside], offsets)


@dataclass(frozen=True, slots=True)
class Names:
    """Names by their words, words by their features; each distinct word once.

    words : the distinct words. by_name : positions in `words` (N bags). by_word : buckets (W bags).
    """

    words: tuple[str, ...]
    by_name: Bags
    by_word: Bags

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Cut names into words."""
        known: dict[str, int] = {}
        cut = [[known.setdefault(word, len(known)) for word in words_of(name)] for name in names]
        return cls(tuple(known), Bags.of(cut), Bags.of([word_features(word) for word in known]))
