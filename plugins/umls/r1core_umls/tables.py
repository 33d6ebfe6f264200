"""What an encoder makes of a base, laid out for comparing mentions with it: plain arrays, so that they can be mapped.

All vectors are narrow: of the encoder's D dimensions the P along which the words of the base differ most (their
principal axes, the widest first). On HPO, recall with P = 128 is that of all 512 within its error.
"""

# B = buckets, W = words, P = principal axes, E = entries (N names, then the definitions), C = concepts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder, unit
from r1core_umls.features import words_of

AXES = 128
NAMES_EACH = 6  # names of a concept that can be compared, besides the nearest
NAME_WORDS, TOLD_WORDS = 8, 24  # words of a name, and of a definition (its rarest), that are compared
ROWS = 8192  # of the encoder's weights that are turned at a time
TOLD = 0.8  # of a definition's cosine, against a name's
_OPPOSED = frozenset(
    {
        *("left", "right", "upper", "lower", "anterior", "posterior", "bilateral", "unilateral", "increased"),
        *("decreased", "high", "low", "absent", "male", "female", "proximal", "distal", "primary", "secondary"),
        *("congenital", "acquired", "recurrent", "mild", "severe", "progressive", "long", "short", "large", "small"),
        *("medial", "lateral", "superior", "inferior", "hand", "foot", "finger", "toe"),
    }
)
"""Words that a name may not gain or lose without meaning something else; numbers count as well."""


@dataclass(frozen=True)
class Tables:
    """The arrays; each stands in a file of its name.

    features : (B, P) float16, the encoder's weights along the axes, for words that the base does not have.
    words : the distinct words of names and definitions, as bytes of UTF-8 joined by NUL. word_sums : (W + 1, P), a
    word's features, summed; the last row, of no word, is 0. rarity : (W + 1,), the logarithm of how few names have the
    word. opposed : (W + 1,), see `is_opposed`.
    entries : (E, P), of length 1. owners : (E,), the concept of each. names : (), N.
    names_of : (C, 6) names, -1 where there are fewer. name_words : (N, 8) words. told_words : (C, 24) words.
    told : (C,), the entry of the definition or -1. sums : (C, P), of the names' vectors. counts : (C,) of names.
    children : (C,), the logarithm of 1 + how many concepts stand right below.
    """

    features: NDArray[np.float16]
    words: NDArray[np.uint8]
    word_sums: NDArray[np.float32]
    rarity: NDArray[np.float32]
    opposed: NDArray[np.bool_]
    entries: NDArray[np.float32]
    owners: NDArray[np.int32]
    names: NDArray[np.int64]
    names_of: NDArray[np.int32]
    name_words: NDArray[np.int32]
    told_words: NDArray[np.int32]
    told: NDArray[np.int32]
    sums: NDArray[np.float32]
    counts: NDArray[np.int32]
    children: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        names: Sequence[str],
        owners: Sequence[int],
        definitions: Sequence[str],
        parents: Sequence[Sequence[int]],
    ) -> Tables:
        """Lay out a base.

        Parameters
        ----------
        names, owners : what may be meant, and the concept of each name (its position).
        definitions : by position; "" where there is none. parents : positions, by position.
        """
        place: dict[str, int] = {}
        cut = [[place.setdefault(word, len(place)) for word in words_of(name)] for name in names]
        owned = np.asarray(owners, np.int32)
        counts = np.bincount(owned, minlength=len(definitions)).astype(np.int32)
        told = [[] if not counts[at] else words_of(text) if text else [] for at, text in enumerate(definitions)]
        explained = [[place.setdefault(word, len(place)) for word in words] for words in told]
        frequency = _frequency(cut, len(place)) + 0.3 * _frequency(explained, len(place))
        rarity = np.append(np.log((len(names) + 1) / (frequency + 0.5)), 0.0).astype(np.float32)
        long = np.stack([encoder.word(word) for word in place])
        named = unit(long[np.unique(np.concatenate([np.array(one) for one in cut]))])
        _, axes = np.linalg.eigh(named.T @ named)
        axes = np.ascontiguousarray(axes[:, : -AXES - 1 : -1]).astype(np.float32)
        sums = np.concatenate([long @ axes, np.zeros((1, axes.shape[1]), np.float32)])
        has = [at for at, words in enumerate(explained) if words]
        entries = unit(np.stack([sums[one].sum(0) for one in [*cut, *(explained[at] for at in has)]]))
        number = np.full(len(definitions), -1, np.int32)
        number[has] = len(names) + np.arange(len(has))
        named_of: list[list[int]] = [[] for _ in definitions]
        for name, owner in enumerate(owners):
            named_of[owner].append(name)
        centres = np.zeros((len(definitions), axes.shape[1]), np.float32)
        np.add.at(centres, owned, entries[: len(names)])
        below = np.bincount([up for ups in parents for up in ups], minlength=len(definitions))
        return cls(
            _along(encoder.weights, axes),
            np.frombuffer("\0".join(place).encode(), np.uint8),
            sums,
            rarity,
            np.array([*map(is_opposed, place), False]),
            entries,
            np.concatenate([owned, np.array(has, np.int32)]),
            np.array(len(names)),
            _padded(named_of, NAMES_EACH),
            _padded(cut, NAME_WORDS),
            _padded([sorted(set(one), key=lambda word: -rarity[word]) for one in explained], TOLD_WORDS),
            number,
            centres,
            counts,
            np.log1p(below).astype(np.float32),
        )

    def save(self, folder: Path) -> None:
        """Write every array into a folder."""
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Tables:
        """Map what `save` wrote."""
        # As plain arrays: numpy's memmap class costs some microseconds at every operation.
        return cls(*(np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False)) for name in cls.files()))

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """The files of a folder, in the order of the fields."""
        return tuple(f"{field.name}.npy" for field in fields(cls))


def is_opposed(word: str) -> bool:
    """Whether a name may not gain or lose this word: left and right, high and low, numbers."""
    return word in _OPPOSED or any(character.isdigit() for character in word)


def _along(weights: NDArray[np.float16], axes: NDArray[np.float32]) -> NDArray[np.float16]:
    """The rows of weights (B, D) along axes (D, P), some at a time: all of them as float32 would take 268 MB."""
    return np.concatenate(
        [
            (weights[first : first + ROWS].astype(np.float32) @ axes).astype(np.float16)
            for first in range(0, len(weights), ROWS)
        ]
    )


def _frequency(lists: Sequence[Sequence[int]], number: int) -> NDArray[np.int64]:
    """In how many of the lists each of `number` things occurs."""
    return np.bincount(np.array([one for each in lists for one in set(each)], np.int64), minlength=number)


def _padded(lists: Sequence[Sequence[int]], width: int) -> NDArray[np.int32]:
    """Lists as rows, cut at `width`, filled up with -1."""
    out = np.full((len(lists), width), -1, np.int32)
    for row, values in enumerate(lists):
        out[row, : len(values)] = values[:width]
    return out
