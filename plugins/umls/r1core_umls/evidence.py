"""What speaks for each concept that a mention may mean, as numbers that a ranker weighs. Torch-free.

The encoder's cosine sees a name as one sum. Here the words of the mention and those of a concept's names and definition
are compared one by one, each by its best match on the other side (Khattab & Zaharia 2020, "ColBERT", equation 3,
weighted by how rare a word is), so that a word without a counterpart ("bilateral", "absent") shows.
"""

# Q = mentions, M = concepts of each, K = names of a concept, L = words, P = axes, U = distinct words of a block

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder, unit
from r1core_umls.features import words_of
from r1core_umls.search import Exact
from r1core_umls.tables import Tables, is_opposed

CONCEPTS = 24  # that are weighed
ENTRIES = 64  # nearest names and definitions that they come from
COMPARED = 3  # names of a concept whose words are compared
WORDS = 10  # of a mention that are compared
SIMILAR = 64  # leading axes by which words are compared
BLOCK = 128  # mentions that are weighed at a time
SAME = 0.999  # similarity from which words count as the same
NAMED = (
    "cosine", "behind the first", "mean of names", "definition", "has a definition", "names", "children",
    "mention covered", "name covered", "least of the mention", "least of the name", "most missed of the mention",
    "most missed of the name", "words only in the mention", "words only in the name", "opposed of the mention",
    "opposed of the name", "words more", "words", "covered by names", "covered by the definition",
    "least by the definition", "literally in the definition", "covered by either", "least by either",
)  # fmt: skip
"""The columns of `Evidence.columns`."""
Array = NDArray[np.float32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """concepts : (Q, M) positions, -1 where there are fewer. columns : (Q, M, X) float32, see `NAMED`."""

    concepts: Places
    columns: Array


class Witness:
    """Compares mentions with the names and definitions of a base.

    Parameters
    ----------
    tables : as `Tables.of` made them.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables, self.search, self.encoder = tables, Exact(tables), Encoder(tables.features)
        self.place = {word: at for at, word in enumerate(bytes(tables.words).decode().split("\0"))}
        self.similar = np.ascontiguousarray(unit(tables.word_sums[:, :SIMILAR]).T)

    def vectors(self, texts: Sequence[Sequence[str]]) -> Array:
        """Return the vectors of texts, each cut into its normalised words (at least one), (texts, P)."""
        if not texts:
            return np.zeros((0, self.tables.sums.shape[1]), np.float32)
        return _Bags.of(self, texts).vectors()

    def weigh(self, mentions: Sequence[str], without: Sequence[int] = ()) -> Evidence:
        """Compare mentions with their nearest concepts.

        Parameters
        ----------
        without : a name of the base to leave out for each mention, for those that are such names themselves.
        """
        cut = [words_of(mention) for mention in mentions]
        # Mentions of like length stand together, so that little is computed for words that are not there.
        order = sorted(range(len(cut)), key=lambda at: len(cut[at]))
        concepts = np.full((len(cut), CONCEPTS), -1, np.int64)
        columns = np.zeros((len(cut), CONCEPTS, len(NAMED)), np.float32)
        for first in range(0, len(order), BLOCK):
            block = order[first : first + BLOCK]
            left = np.asarray(without)[block] if len(without) else None
            concepts[block], columns[block] = self._block(_Asked.of(self, [cut[at] for at in block]), left)
        return Evidence(concepts, columns)

    def _block(self, asked: _Asked, without: Places | None) -> tuple[Places, Array]:
        found = self._found(asked.vectors, without)
        concepts = found.concepts
        there = np.maximum(concepts, 0)
        tables, columns = self.tables, np.zeros((*concepts.shape, len(NAMED)), np.float32)
        sums, counts = tables.sums[there], tables.counts[there]
        if without is not None:
            mine = concepts == tables.owners[without][:, None]
            counts = counts - mine
            sums[mine] -= asked.vectors[np.nonzero(mine)[0]]
        told = tables.told[there]
        columns[..., 0] = found.cosines[..., 0]
        columns[..., 1] = found.cosines[..., 0] - found.cosines[..., 0].max(-1, keepdims=True)
        length = np.sqrt(np.einsum("qmp,qmp->qm", sums, sums))
        columns[..., 2] = np.einsum("qmp,qp->qm", sums, asked.vectors) / np.maximum(length, 1e-6)
        columns[..., 3] = np.einsum("qmp,qp->qm", tables.entries[told], asked.vectors) * (told >= 0)
        columns[..., 4] = told >= 0
        columns[..., 5], columns[..., 6] = np.log(np.maximum(counts, 1)), tables.children[there]
        asked.compare(self, found.names, there, columns[..., 7:])
        return concepts, columns

    def _found(self, vectors: Array, without: Places | None) -> _Found:
        """The nearest concepts of mentions, and their nearest names."""
        cosines, entries = self.search.nearest(vectors, ENTRIES)
        if without is not None:
            cosines = np.where(entries == without[:, None], -2.0, cosines)
        owners = np.where(cosines > -2.0, self.tables.owners[entries].astype(np.int64), -1)
        before = np.tri(owners.shape[1], k=-1, dtype=bool).T[:, None]
        new = ~((owners.T[:, :, None] == owners) & before).any(0) & (owners >= 0)
        order = np.argsort(~new, axis=1, kind="stable")[:, :CONCEPTS]
        width = order.shape[1]
        concepts = np.full((len(vectors), CONCEPTS), -1, np.int64)
        concepts[:, :width] = np.where(np.take_along_axis(new, order, 1), np.take_along_axis(owners, order, 1), -1)
        nearest = np.zeros((len(vectors), CONCEPTS), np.int64)
        nearest[:, :width] = np.take_along_axis(entries, order, 1)
        listed = self.tables.names_of[np.maximum(concepts, 0)]
        nearest = np.where(nearest < int(self.tables.names), nearest, listed[..., 0])
        names = np.concatenate([nearest[..., None], np.where(listed == nearest[..., None], -1, listed)], -1)
        names[concepts < 0] = -1
        if without is not None:
            names[names == without[:, None, None]] = -1
        close = np.einsum("qmkp,qp->qmk", self.tables.entries[names], vectors, optimize=True)
        close[names < 0] = -1.0
        best = np.argsort(-close, axis=-1, kind="stable")[..., :COMPARED]
        return _Found(concepts, np.take_along_axis(names, best, -1), np.take_along_axis(close, best, -1))


@dataclass(frozen=True, slots=True)
class _Found:
    """concepts : (Q, M). names : (Q, M, K), best first. cosines : theirs, -1 where there is no such name."""

    concepts: Places
    names: Places
    cosines: Array


@dataclass(frozen=True, slots=True)
class _Bags:
    """Texts by their words.

    distinct : the U words. lists : of each text, places in `distinct`. known : (U,) places in the base, -1 for a word
    that it does not have. sums : (U, P).
    """

    distinct: Sequence[str]
    lists: Sequence[Sequence[int]]
    known: Places
    sums: Array

    @classmethod
    def of(cls, witness: Witness, cut: Sequence[Sequence[str]]) -> _Bags:
        place: dict[str, int] = {}
        lists = [[place.setdefault(word, len(place)) for word in words] for words in cut]
        distinct = list(place)
        known = np.array([witness.place.get(word, -1) for word in distinct])
        sums = witness.tables.word_sums[known]
        for at in np.flatnonzero(known < 0).tolist():
            sums[at] = witness.encoder.word(distinct[at])
        return cls(distinct, lists, known, sums)

    def vectors(self) -> Array:
        """Of each text, (texts, P), of length 1."""
        starts = np.cumsum([0, *(len(one) for one in self.lists[:-1])])
        return unit(np.add.reduceat(self.sums[[at for one in self.lists for at in one]], starts))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A block of mentions.

    vectors : (Q, P). words : (Q, L) rows of `similar`, -1 where there are fewer. similar : (U + 1, W + 1), how alike
    each word is to every word of the base, 1 where it is that word; -1 in the last row and column, of no word.
    rarity, opposed : (Q, L).
    """

    vectors: Array
    words: Places
    similar: Array
    rarity: Array
    opposed: NDArray[np.bool_]

    @classmethod
    def of(cls, witness: Witness, cut: Sequence[Sequence[str]]) -> _Asked:
        """Look up the words of mentions."""
        tables, bags = witness.tables, _Bags.of(witness, cut)
        words = np.full((len(cut), min(max(map(len, bags.lists)), WORDS)), -1, np.int64)
        for at, one in enumerate(bags.lists):
            words[at, : len(one)] = one[:WORDS]
        similar = np.full((len(bags.known) + 1, witness.similar.shape[1]), -1.0, np.float32)
        np.matmul(unit(bags.sums[:, :SIMILAR]), witness.similar, out=similar[:-1])
        similar[:, -1] = -1.0
        found = np.flatnonzero(bags.known >= 0)
        similar[found, bags.known[found]] = 1.0
        rarity = np.where(bags.known >= 0, tables.rarity[bags.known], tables.rarity.max())
        opposed = np.append(tables.opposed[bags.known], False)
        for at in np.flatnonzero(bags.known < 0).tolist():
            opposed[at] = is_opposed(bags.distinct[at])
        return cls(bags.vectors(), words, similar, np.append(rarity, 0.0).astype(np.float32)[words], opposed[words])

    def compare(self, witness: Witness, names: Places, concepts: Places, out: Array) -> None:
        """Compare words with those of names (Q, M, K) and definitions of concepts (Q, M); fills `out` (Q, M, 18).

        Of each concept the name counts that covers the mention and is covered by it best.
        """
        tables = witness.tables
        total = np.maximum(self.rarity.sum(-1), 1e-6)[:, None]
        there = self.words >= 0
        number, named = there.sum(-1), np.swapaxes(names >= 0, 1, 2)  # (Q, K, M)
        theirs = np.where((names >= 0)[..., None], tables.name_words[names], -1).transpose(3, 0, 2, 1)
        theirs = theirs[: max(int((theirs >= 0).sum(0).max()), 1)]  # (L', Q, K, M)
        alike = self._alike(theirs)  # (L', Q, L, K, M)
        forth, back = alike.max(0), alike.max(2)
        held, weight = theirs >= 0, tables.rarity[theirs]
        covered = np.einsum("qlkm,ql->qkm", forth, self.rarity) / total[..., None]
        covers = (back * weight).sum(0) / np.maximum(weight.sum(0), 1e-6)
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
        out[..., 4] = ((1 - one) * self.rarity[..., None]).max(1)
        out[..., 5] = ((1 - other) * weight).max(0)
        out[..., 6], out[..., 7] = lone.sum(1), their_lone.sum(0)
        out[..., 8] = (lone & self.opposed[..., None]).sum(1)
        out[..., 9] = (their_lone & tables.opposed[chosen]).sum(0)
        out[..., 10] = held.sum(0) - number[:, None]
        out[..., 11] = number[:, None]
        by_names = np.where(named[:, None], forth, -1.0).max(2)  # (Q, L, M)
        told = self._alike(tables.told_words[concepts].transpose(2, 0, 1)).max(0)
        either = np.maximum(by_names, told)
        for at, part in ((12, by_names), (13, np.maximum(told, 0.0)), (15, told >= SAME), (16, either)):
            out[..., at] = np.einsum("qlm,ql->qm", part.astype(np.float32), self.rarity) / total
        out[..., 14] = np.where(there[..., None], told, 1.0).min(1)
        out[..., 17] = np.where(there[..., None], either, 1.0).min(1)

    def _alike(self, theirs: NDArray[np.integer]) -> Array:
        """The similarity of every word to each of `theirs` (L', Q, ...), (L', Q, L, ...); -1 where there is none."""
        shape = *self.words.shape, *([1] * (theirs.ndim - 2))
        width = self.similar.shape[1]
        rows = (np.where(self.words >= 0, self.words, len(self.similar) - 1) * width).reshape(shape)
        return np.take(self.similar, rows + np.where(theirs >= 0, theirs, width - 1)[:, :, None])
