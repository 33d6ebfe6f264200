"""What the encoder sees of a name: its words and their 3- to 5-grams, hashed into a fixed number of buckets.

Words are in the normal form of `names` (case, accents, plurals gone) and stand for themselves wherever they are: word
order is not seen. Torch-free.
"""

# F = features

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from r1core_umls.names import norms_of

BUCKETS = 1 << 17
GRAMS = (3, 4, 5)
COUNTED = 1 << 18  # lists whose values are counted at a time
SUMMED = 512  # words whose features are gathered at a time: 30 MB at a width of 512
WORDS_HELD = 65536  # recent words whose features are kept: tens of MB

_OPPOSED = frozenset(
    {
        *("left", "right", "upper", "lower", "anterior", "posterior", "bilateral", "unilateral", "increased"),
        *("decreased", "high", "low", "absent", "male", "female", "proximal", "distal", "primary", "secondary"),
        *("congenital", "acquired", "recurrent", "mild", "severe", "progressive", "long", "short", "large", "small"),
        *("medial", "lateral", "superior", "inferior", "hand", "foot", "finger", "toe"),
    }
)
"""Words that a name may not gain or lose without meaning something else; numbers count as well."""


@lru_cache(WORDS_HELD)
def word_features(word: str) -> tuple[int, ...]:
    """Return the buckets of a normalised word: itself, then the character n-grams of `<word>`."""
    framed = f"<{word}>"
    grams = [framed[at : at + size] for size in GRAMS for at in range(len(framed) - size + 1)]
    return tuple(crc32(text.encode()) % BUCKETS for text in (f"word {word}", *grams))


def words_of(name: str) -> list[str]:
    """Return the normalised words of a name; a name without a letter or digit is one word, as it stands."""
    return norms_of(name) or [name]


def is_opposed(word: str) -> bool:
    """Whether a name may not gain or lose this word: left and right, high and low, numbers."""
    return word in _OPPOSED or any(character.isdigit() for character in word)


def sums_of(weights: NDArray[np.float16], words: Sequence[str]) -> NDArray[np.float32]:
    """Return the sum of each word's rows of weights (B, D), (words, D); a few words at a time."""
    out = np.empty((len(words), weights.shape[1]), np.float32)
    for first in range(0, len(words), SUMMED):
        bags = Bags.of([word_features(word) for word in words[first : first + SUMMED]])
        out[first : first + SUMMED] = np.add.reduceat(weights[bags.values].astype(np.float32), bags.offsets[:-1])
    return out


class Texts(Protocol):
    """Strings in order, in memory or on disk."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, at: int, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Bags:
    """Sequences of numbers, one behind the other: `values[offsets[i] : offsets[i + 1]]` is the i-th; int64 or int32."""

    values: NDArray[np.integer]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Bags | Sequence[Sequence[int]]) -> Bags:
        """Join lists; bags stay as they are."""
        if isinstance(lists, Bags):
            return lists
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(one) for one in lists], out=offsets[1:])
        return cls(np.fromiter((value for one in lists for value in one), np.int64, int(offsets[-1])), offsets)

    @classmethod
    def grouped(cls, owners: NDArray[np.int32], number: int) -> Bags:
        """Return, of each of `number` owners, the places where it stands in `owners`, ascending."""
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=number))])
        return cls(np.argsort(owners, kind="stable"), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def pick(self, which: NDArray[np.int64]) -> Bags:
        """Return some of the lists, in this order."""
        sizes = self.offsets[which + 1] - self.offsets[which]
        offsets = np.zeros(len(which) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return Bags(self.values[np.repeat(self.offsets[which], sizes) + inside], offsets)

    def padded(self, width: int) -> NDArray[np.int32]:
        """Return the lists as rows, cut at `width`, filled up with -1."""
        out = np.full((len(self), width), -1, np.int32)
        sizes = np.diff(self.offsets)
        for column in range(width):
            rows = np.flatnonzero(sizes > column)
            out[rows, column] = self.values[self.offsets[rows] + column]
        return out

    def distinct(self, key: NDArray[np.float32]) -> Bags:
        """Return each list's values once, by ascending `key[value]`, then by value."""
        number = int(self.values.max(initial=0)) + 1
        pairs = np.unique(np.repeat(np.arange(len(self)), np.diff(self.offsets)) * number + self.values)
        rows, values = pairs // number, pairs % number
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self)))])
        return Bags(values[np.lexsort((values, key[values], rows))], offsets)

    def frequency(self, number: int) -> NDArray[np.int64]:
        """Return in how many of the lists each of the values 0 to `number` - 1 stands, (number,)."""
        total, level = np.zeros(number, np.int64), np.zeros(number, np.float32)
        for first in range(0, len(self), COUNTED):
            some = self.pick(np.arange(first, min(first + COUNTED, len(self))))
            values, times = np.unique(some.distinct(level).values, return_counts=True)
            total[values] += times
        return total


class Vocabulary(dict[str, int]):
    """Distinct words in the order in which they came, each with its place."""

    def cut(self, texts: Iterable[str]) -> Bags:
        """Return the places of the normalised words of each text; new words are added."""
        values, offsets = array("i"), array("q", [0])
        for text in texts:
            values.extend([self.setdefault(word, len(self)) for word in words_of(text)])
            offsets.append(len(values))
        return Bags(np.frombuffer(values, np.int32), np.frombuffer(offsets, np.int64))


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
        known = Vocabulary()
        cut = known.cut(names)
        return cls(tuple(known), cut, Bags.of([word_features(word) for word in known]))
