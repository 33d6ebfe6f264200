"""Mentions and names compared word by word, each word by its best match on the other side. Torch-free.

As in Khattab & Zaharia 2020, "ColBERT", equation 3, weighted by how rare a word is.
"""

# Q = mentions, M = concepts of each, K = names of a concept, L = words of a mention, L' = of a name, P = axes,
# U = distinct words of a block, V = distinct words of the names and definitions that they are compared with

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder, unit
from r1core_umls.features import is_opposed
from r1core_umls.tables import Tables

WORDS = 10  # of a mention that are compared
SIMILAR = 48  # leading axes by which words are compared
HELD = 100_000  # words of a base up to which their vectors are held as float32, 20 MB
SAME = 0.999  # similarity from which words count as the same
NAMED = (
    "mention covered", "name covered", "least of the mention", "least of the name", "most missed of the mention",
    "most missed of the name", "words only in the mention", "words only in the name", "opposed of the mention",
    "opposed of the name", "words more", "words", "covered by names", "covered by the definition",
    "least by the definition", "literally in the definition", "covered by either", "least by either",
)  # fmt: skip
"""The columns that `Words.compare` fills."""
Array = NDArray[np.float32]
Places = NDArray[np.int64]


class Lexicon:
    """The words of a base."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self._encoder = tables, Encoder(tables.features)
        self._place = {word: at for at, word in enumerate(bytes(tables.words).decode().split("\0"))}
        self._rarest = float(tables.rarity.max())
        few = len(tables.word_sums) <= HELD
        self._leading = unit(tables.word_sums[:, :SIMILAR].astype(np.float32)) if few else None

    def leading(self, words: NDArray[np.integer]) -> Array:
        """Return the leading axes of words of the base, (words, `SIMILAR`), at length 1."""
        if self._leading is not None:
            return self._leading[words]
        return unit(self.tables.word_sums[words, :SIMILAR].astype(np.float32))

    def cut(self, texts: Sequence[Sequence[str]]) -> Words:
        """Look up the words of texts, each cut into its normalised words (at least one)."""
        place: dict[str, int] = {}
        lists = [[place.setdefault(word, len(place)) for word in words] for words in texts]
        known = np.array([self._place.get(word, -1) for word in place])
        sums = self.tables.word_sums[known].astype(np.float32)
        rarity, opposed = self.tables.rarity[known], self.tables.opposed[known]
        new = np.flatnonzero(known < 0).tolist()
        if new:
            distinct = list(place)
            sums[new] = np.stack([self._encoder.word(distinct[at]) for at in new])
            rarity[new], opposed[new] = self._rarest, [is_opposed(distinct[at]) for at in new]
        return Words(self, lists, known, sums, np.append(rarity, 0.0), np.append(opposed, False))


@dataclass(frozen=True, slots=True)
class Words:
    """Texts by their words.

    lists : of each text, places among the U distinct words. known : (U,) places in the base, -1 for a word that it does
    not have. sums : (U, P). rarity, opposed : (U + 1,), the last for no word.
    """

    lexicon: Lexicon
    lists: Sequence[Sequence[int]]
    known: Places
    sums: Array
    rarity: Array
    opposed: NDArray[np.bool_]

    def vectors(self) -> Array:
        """Of each text, (Q, P), of length 1."""
        starts = np.cumsum([0, *(len(one) for one in self.lists[:-1])])
        return unit(np.add.reduceat(self.sums[[at for one in self.lists for at in one]], starts))

    def compare(self, names: Places, concepts: Places, out: Array) -> None:
        """Compare with the names (Q, M, K), -1 for none, and definitions of concepts (Q, M); fills `out` (Q, M, 18).

        Of each concept the name counts that covers the mention and is covered by it best.
        """
        tables, mine = self.lexicon.tables, self._padded()
        rarity, opposed, there = self.rarity[mine], self.opposed[mine], mine >= 0
        total = np.maximum(rarity.sum(-1), 1e-6)[:, None]
        theirs = np.where((names >= 0)[..., None], tables.name_words[names], -1).transpose(3, 0, 2, 1)
        theirs = theirs[: max(int((theirs >= 0).any((1, 2, 3)).sum()), 1)]  # (L', Q, K, M)
        explained = tables.told_words[concepts].transpose(2, 0, 1)  # (L', Q, M)
        similar = _Similar.of(self, (theirs, explained))
        alike = similar.each(mine, theirs)  # (L', Q, L, K, M)
        forth, back = alike.max(0), alike.max(2)
        held, weight = theirs >= 0, tables.rarity[theirs]
        covered = np.einsum("qlkm,ql->qkm", forth, rarity) / total[..., None]
        covers = (back * weight).sum(0) / np.maximum(weight.sum(0), 1e-6)
        named = np.swapaxes(names >= 0, 1, 2)
        best = np.where(named, covered + covers, -9.0).argmax(1)[:, None]  # (Q, 1, M)
        one = np.take_along_axis(forth, best[:, None], 2)[:, :, 0]  # (Q, L, M)
        other, held, weight, chosen = (
            np.take_along_axis(part, best[None], 2)[:, :, 0] for part in (back, held, weight, theirs)
        )  # (L', Q, M)
        lone, their_lone = (one < SAME) & there[..., None], (other < SAME) & held
        out[..., 0] = np.take_along_axis(covered, best, 1)[:, 0]
        out[..., 1] = np.take_along_axis(covers, best, 1)[:, 0]
        out[..., 2] = np.where(there[..., None], one, 1.0).min(1)
        out[..., 3] = np.where(held, other, 1.0).min(0)
        out[..., 4] = ((1 - one) * rarity[..., None]).max(1)
        out[..., 5] = ((1 - other) * weight).max(0)
        out[..., 6], out[..., 7] = lone.sum(1), their_lone.sum(0)
        out[..., 8] = (lone & opposed[..., None]).sum(1)
        out[..., 9] = (their_lone & tables.opposed[chosen]).sum(0)
        out[..., 11] = there.sum(-1)[:, None]
        out[..., 10] = held.sum(0) - out[..., 11]
        by_names = np.where(named[:, None], forth, -1.0).max(2)  # (Q, L, M)
        told = similar.each(mine, explained).max(0)
        either = np.maximum(by_names, told)
        for at, part in ((12, by_names), (13, np.maximum(told, 0.0)), (15, told >= SAME), (16, either)):
            out[..., at] = np.einsum("qlm,ql->qm", part.astype(np.float32), rarity) / total
        out[..., 14] = np.where(there[..., None], told, 1.0).min(1)
        out[..., 17] = np.where(there[..., None], either, 1.0).min(1)

    def _padded(self) -> Places:
        """The first words of each text, (Q, L), -1 where there are fewer."""
        out = np.full((len(self.lists), min(max(map(len, self.lists)), WORDS)), -1, np.int64)
        for at, one in enumerate(self.lists):
            out[at, : len(one)] = one[:WORDS]
        return out


@dataclass(frozen=True, slots=True)
class _Similar:
    """How alike words are to those that they are compared with.

    cosines : (U + 1, V + 1), 1 where it is the same word; -1 in the last row and column, of no word. used : (V,) the
    words of the base that the columns are of, ascending. slots : (W + 1,) the column of each, V of no word; None for a
    base of many words, which would be gone over for every mention.
    """

    cosines: Array
    used: Places
    slots: NDArray[np.int32] | None

    @classmethod
    def of(cls, words: Words, others: Sequence[NDArray[np.int32]]) -> _Similar:
        number, slots = len(words.lexicon.tables.word_sums), None
        if number <= HELD:
            slots = np.full(number, -1, np.int32)
            for some in others:
                slots[some] = 0
            slots[-1] = -1
            used = np.flatnonzero(slots >= 0)
            slots[used] = np.arange(len(used))
            slots[-1] = len(used)
        else:
            used = np.unique(np.concatenate([some.ravel() for some in others])).astype(np.int64)
            used = used[used >= 0]
        mine = np.zeros((len(words.known) + 1, min(SIMILAR, words.sums.shape[1])), np.float32)
        mine[:-1] = unit(words.sums[:, :SIMILAR])
        cosines = mine @ words.lexicon.leading(np.append(used, -1)).T
        cosines[-1] = cosines[:, -1] = -1.0
        place = np.minimum(np.searchsorted(used, words.known), max(len(used) - 1, 0))
        same = np.flatnonzero(used[place] == words.known) if len(used) else np.zeros(0, np.int64)
        cosines[same, place[same]] = 1.0
        return cls(cosines, used, slots)

    def each(self, mine: Places, theirs: NDArray[np.int32]) -> Array:
        """The similarity of every word (Q, L) to each of `theirs` (L', Q, ...), (L', Q, L, ...); -1 where none is."""
        width = self.cosines.shape[1]
        rows = np.where(mine >= 0, mine, len(self.cosines) - 1) * width
        columns = self._columns(theirs)
        return np.take(self.cosines, rows.reshape(*mine.shape, *([1] * (theirs.ndim - 2))) + columns[:, :, None])

    def _columns(self, words: NDArray[np.int32]) -> NDArray[np.integer]:
        if self.slots is not None:
            return self.slots[words]
        return np.where(words >= 0, np.searchsorted(self.used, words), len(self.used))
