"""What an encoder makes of a base, laid out for comparing mentions with it: plain arrays, so that they can be mapped.

All vectors are narrow: of the encoder's D dimensions the P along which the words of the base differ most (their
principal axes, the widest first). On HPO, recall with P = 128 is that of all 512 within its error. What is as long as
the base is computed some rows at a time, and written at once where a folder is given.
"""

# B = buckets, W = words, P = principal axes, E = entries (N names, then the definitions), C = concepts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from mmap import MADV_DONTNEED, mmap
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder, unit
from r1core_umls.features import Bags, Texts, Vocabulary, is_opposed, sums_of

AXES, AXES_OF_MANY = 128, 64  # of a base, and of one of more than `MANY` names, to halve the largest table
MANY = 500_000
NAMES_EACH = 4  # names of a concept that are compared, besides the nearest
PARENTS_EACH = 2
NAME_WORDS, TOLD_WORDS = 8, 16  # words of a name, and of a definition (its rarest), that are compared
ROWS = 8192  # that are computed at a time
HELD = 1 << 20  # rows of a mapped table that are written before their pages go back to the system
SPREAD_OVER = 100_000  # words that the axes are drawn from, at most


@dataclass(frozen=True)
class Tables:
    """The arrays; each stands in a file of its name.

    features : (B, P) float16, the encoder's weights along the axes.
    words : the distinct words of names and definitions, as bytes of UTF-8 joined by NUL. word_sums : (W + 1, P), a
    word's features, summed; the last row, of no word, is 0. rarity : (W + 1,), the logarithm of how few names have the
    word. opposed : (W + 1,), see `is_opposed`.
    entries : (E, P), of length 1. owners : (E,), the concept of each. names : (), N.
    names_of : (C, 4) names, -1 where there are fewer. lengths : (C,), of the sum of the vectors of these names.
    name_words : (N, 8) words. told_words : (C, 16) words. told : (C,), the entry of the definition or -1.
    counts : (C,) of names. above : (C, 2) parents. children : (C,), the logarithm of 1 + how many stand right below.
    """

    features: NDArray[np.float16]
    words: NDArray[np.uint8]
    word_sums: NDArray[np.float16]
    rarity: NDArray[np.float32]
    opposed: NDArray[np.bool_]
    entries: NDArray[np.float16]
    owners: NDArray[np.int32]
    names: NDArray[np.int64]
    names_of: NDArray[np.int32]
    lengths: NDArray[np.float32]
    name_words: NDArray[np.int32]
    told_words: NDArray[np.int32]
    told: NDArray[np.int32]
    counts: NDArray[np.int32]
    above: NDArray[np.int32]
    children: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        names: Texts,
        owners: Sequence[int] | NDArray[np.int32],
        definitions: Sequence[str],
        parents: Bags | Sequence[Sequence[int]],
        folder: Path | None = None,
    ) -> Tables:
        """Lay out a base.

        Parameters
        ----------
        names, owners : what may be meant, and the concept of each name (its position).
        definitions : by position; "" where there is none. parents : positions, by position.
        folder : where the arrays are written, and mapped from; by default they are held in memory.
        """
        vocabulary, owned = Vocabulary(), np.asarray(owners, np.int32)
        cut = vocabulary.cut(names)
        named = len(vocabulary)
        counts = np.bincount(owned, minlength=len(definitions)).astype(np.int32)
        has = [at for at, text in enumerate(definitions) if text and counts[at]]
        explained = vocabulary.cut([definitions[at] for at in has])
        frequency = cut.frequency(len(vocabulary)) + 0.3 * explained.frequency(len(vocabulary))
        rarity = np.append(np.log((len(names) + 1) / (frequency + 0.5)), 0.0).astype(np.float32)
        words = list(vocabulary)
        features = _along(encoder.weights, _axes(encoder, words[:named], AXES if len(names) <= MANY else AXES_OF_MANY))
        sums = _word_sums(features, words)
        number = np.full(len(definitions), -1, np.int32)
        number[has] = len(names) + np.arange(len(has))
        entries = _entries(sums, (cut, explained), folder)
        names_of = Bags.grouped(owned, len(definitions)).padded(NAMES_EACH)
        told_words = np.full((len(definitions), TOLD_WORDS), -1, np.int32)
        told_words[has] = explained.distinct(-rarity).padded(TOLD_WORDS)
        ups = Bags.of(parents)
        made = cls(
            features,
            np.frombuffer("\0".join(words).encode(), np.uint8),
            sums,
            rarity,
            np.array([*map(is_opposed, words), False]),
            entries,
            np.concatenate([owned, np.array(has, np.int32)]),
            np.array(len(names)),
            names_of,
            _lengths(entries, names_of),
            cut.padded(NAME_WORDS),
            told_words,
            number,
            counts,
            ups.padded(PARENTS_EACH),
            np.log1p(np.bincount(ups.values, minlength=len(definitions))).astype(np.float32),
        )
        if folder is None:
            return made
        made.save(folder)
        return cls.load(folder)

    def save(self, folder: Path) -> None:
        """Write every array into a folder."""
        for field in fields(self):
            values = getattr(self, field.name)
            mapped = values.base if isinstance(values.base, np.memmap) else values
            if isinstance(mapped, np.memmap) and Path(str(mapped.filename)).parent == folder:  # stands there already
                mapped.flush()
            else:
                np.save(folder / f"{field.name}.npy", values, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Tables:
        """Map what `save` wrote."""
        # As plain arrays: numpy's memmap class costs some microseconds at every operation.
        return cls(*(np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False)) for name in cls.files()))

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """The files of a folder, in the order of the fields."""
        return tuple(f"{field.name}.npy" for field in fields(cls))


def let_go(array: NDArray[np.generic]) -> None:
    """Give the pages of a mapped array back to the system, which reads them again where they are wanted."""
    place = array.base
    while isinstance(place, np.ndarray):
        place = place.base
    if isinstance(place, mmap):
        place.madvise(MADV_DONTNEED)


def _axes(encoder: Encoder, words: Sequence[str], number: int) -> NDArray[np.float32]:
    """The principal axes of words' vectors at length 1, (D, P), the widest first."""
    spread = np.zeros((encoder.width, encoder.width))
    step = -(-len(words) // SPREAD_OVER)
    for first in range(0, len(words), ROWS * step):
        some = unit(sums_of(encoder.weights, words[first : first + ROWS * step : step]))
        spread += some.T @ some
    _, axes = np.linalg.eigh(spread)
    return np.ascontiguousarray(axes[:, : -number - 1 : -1], np.float32)


def _along(weights: NDArray[np.float16], axes: NDArray[np.float32]) -> NDArray[np.float16]:
    """The rows of weights (B, D) along axes (D, P), some at a time: all of them as float32 would take 268 MB."""
    return np.concatenate(
        [
            (weights[first : first + ROWS].astype(np.float32) @ axes).astype(np.float16)
            for first in range(0, len(weights), ROWS)
        ]
    )


def _word_sums(features: NDArray[np.float16], words: Sequence[str]) -> NDArray[np.float16]:
    out = np.zeros((len(words) + 1, features.shape[1]), np.float16)
    for first in range(0, len(words), ROWS):
        out[first : first + ROWS][: len(words) - first] = sums_of(features, words[first : first + ROWS])
    return out


def _entries(sums: NDArray[np.float16], parts: Sequence[Bags], folder: Path | None) -> NDArray[np.float16]:
    """The vectors of texts that are given by their words."""
    shape = (sum(map(len, parts)), sums.shape[1])
    out = (
        np.empty(shape, np.float16) if folder is None else open_memmap(folder / "entries.npy", "w+", np.float16, shape)
    )
    last = 0
    for part in parts:
        for first in range(0, len(part), ROWS):
            bags = part.pick(np.arange(first, min(first + ROWS, len(part))))
            vectors = np.add.reduceat(sums[bags.values].astype(np.float32), bags.offsets[:-1])
            out[last : last + len(bags)] = unit(vectors)
            last += len(bags)
            if last // HELD != (last - len(bags)) // HELD:
                let_go(out)
    return out


def _lengths(entries: NDArray[np.float16], names_of: NDArray[np.int32]) -> NDArray[np.float32]:
    out = np.empty(len(names_of), np.float32)
    for first in range(0, len(names_of), ROWS):
        some = names_of[first : first + ROWS]
        total = (entries[some].astype(np.float32) * (some >= 0)[..., None]).sum(1)
        out[first : first + ROWS] = np.sqrt(np.einsum("cp,cp->c", total, total))
    let_go(entries)
    return out
