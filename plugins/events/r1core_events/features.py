"""Features of a clause: hashed words, pairs of words and character 3- to 5-grams, concepts and pairs of concepts.

Money, percents, dates, numbers and names are classes by then (`tokens.py`), so that the value of a slot says nothing.
Words in the scope of a cue become words of their own ("~declare"; Das and Chen 2001), without character n-grams and
concepts: what was learned of "declare" does not hold of "did not declare". Buckets are CRC-32 modulo a power of two,
the same on every machine.

Features are numbered block after block; each block counts `1 / sqrt(its size)`, so that long clauses weigh no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from r1core_events.lexicon import Lexicon
from r1core_events.tokens import CLASSES, Tokens
from r1core_events.values import listed

Ids = NDArray[np.intp]
BUCKETS = 1 << 16
SHORTEST, LONGEST = 3, 5
BLOCKS = ("words", "characters", "pairs", "concepts", "concept pairs", "triggers")
_STOP = frozenset(
    listed(
        "a an the of to in on at for and or by with from as that which its it is was were are be been has "
        "have had this "
        "will said says their his her he she they"
    )
)
"""No features of their own, except in pairs: with a few templates a type they would be learned by heart."""


@lru_cache(maxsize=1 << 15)
def word_bucket(word: str) -> int:
    """Bucket of one word, -1 for a word that is too common to say anything."""
    return -1 if word in _STOP else crc32(word.encode()) % BUCKETS


@lru_cache(maxsize=1 << 15)
def character_buckets(word: str) -> tuple[int, ...]:
    """Buckets of a word's character n-grams, with a mark at both of its ends."""
    if word in _STOP or word in CLASSES or not word.isalpha():
        return ()
    marked = f"<{word}>"
    sizes = range(SHORTEST, LONGEST + 1)
    return tuple(
        crc32(marked[at : at + size].encode()) % BUCKETS for size in sizes for at in range(len(marked) - size + 1)
    )


def terms(tokens: Tokens) -> list[str]:
    """The words that features are made of, one a token: "" for the later words of a name, "~" before one in doubt."""
    if not tokens.cues:
        return tokens.normal
    return ["~" + word if doubt and word else word for word, doubt in zip(tokens.normal, tokens.doubt, strict=True)]


def pair_buckets(words: Sequence[str]) -> list[int]:
    """Buckets of neighbouring words, with the two ends of the clause as words."""
    kept = [word for word in words if word]
    return [crc32(f"{a} {b}".encode()) % BUCKETS for a, b in zip(["<", *kept], [*kept, ">"], strict=True)]


class Numbering:
    """Where the features of each block begin among all features."""

    def __init__(self, lexicon: Lexicon, labels: int) -> None:
        self.lexicon = lexicon
        self._concepts = len(lexicon.names)
        sizes = (BUCKETS, BUCKETS, BUCKETS, self._concepts, self._concepts**2, labels)
        self.starts = tuple(int(n) for n in np.cumsum((0, *sizes)))
        self._upper = [np.triu_indices(n, 1) for n in range(MAX_CONCEPTS + 1)]

    @property
    def total(self) -> int:
        """Number of all features."""
        return self.starts[-1]

    def word(self, word: str) -> int:
        """A word's feature, -1 for none."""
        return word_bucket(word)

    def characters(self, word: str) -> list[int]:
        """The features of a word's character n-grams."""
        return [self.starts[1] + bucket for bucket in character_buckets(word)]

    def pairs(self, words: Sequence[str]) -> list[int]:
        """The features of neighbouring words."""
        return [self.starts[2] + bucket for bucket in pair_buckets(words)]

    def concepts(self, words: Sequence[str]) -> tuple[Ids, Ids]:
        """The features of a clause's concepts, and of every two of them; of the first `MAX_CONCEPTS` only."""
        found = np.asarray(self.lexicon.of_words(words)[:MAX_CONCEPTS], dtype=np.intp)
        first, second = self._upper[len(found)]
        return found + self.starts[3], found[first] * self._concepts + found[second] + self.starts[4]

    def trigger(self, label: int) -> int:
        """The feature of a trigger of this type."""
        return self.starts[5] + label


MAX_CONCEPTS = 40
"""Of a clause; bounds the number of pairs, and with it the time for a clause."""
