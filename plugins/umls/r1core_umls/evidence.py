"""What speaks for each concept that a mention may mean, as numbers that a ranker weighs. Torch-free.

The encoder's cosine sees a name as one sum; here it stands beside those of the concept's other names, its definition
and its parents, and beside a comparison word by word (`comparison`), so that a word without a counterpart
("bilateral", "absent") shows.
"""

# Q = mentions, M = concepts of each, K = names of a concept, P = axes, X = columns

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls import comparison
from r1core_umls.comparison import Lexicon
from r1core_umls.features import words_of
from r1core_umls.search import Nearest
from r1core_umls.tables import Tables

CONCEPTS = 10  # that are weighed
ENTRIES = 56  # nearest names and definitions that they come from
BLOCK = 256  # mentions that are weighed at a time
OF_VECTORS = (
    "cosine", "mean of names", "definition", "has a definition", "names", "children", "parents", "parents among them",
    "children among them",
)  # fmt: skip
BEHIND = ("cosine", "mean of names", "mention covered", "name covered", "covered by either")
"""Columns that are also told by how far they lie behind the most of any concept that is weighed."""
NAMED = (*OF_VECTORS, *comparison.NAMED, *(f"{name}, behind the most" for name in BEHIND))
"""The columns of `Evidence.columns`."""
_BEHIND = [NAMED.index(name) for name in BEHIND]
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
    search : over these tables; made here where it is absent.
    """

    def __init__(self, tables: Tables, search: Nearest | None = None) -> None:
        self.tables, self.search, self.lexicon = tables, search or Nearest(tables), Lexicon(tables)

    def vectors(self, texts: Sequence[Sequence[str]]) -> Array:
        """Return the vectors of texts, each cut into its normalised words (at least one), (texts, P)."""
        if not texts:
            return np.zeros((0, self.tables.entries.shape[1]), np.float32)
        return self.lexicon.cut(texts).vectors()

    def weigh(self, mentions: Sequence[str], without: Sequence[int] | Places = ()) -> Evidence:
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
            concepts[block], columns[block] = self._block([cut[at] for at in block], left)
        return Evidence(concepts, columns)

    def _block(self, cut: Sequence[Sequence[str]], without: Places | None) -> tuple[Places, Array]:
        words = self.lexicon.cut(cut)
        vectors = words.vectors()
        concepts, nearest = self._found(vectors, without)
        there = np.maximum(concepts, 0)
        columns = np.zeros((*concepts.shape, len(NAMED)), np.float32)
        names = self._by_names(vectors, there, nearest, without, columns)
        names[concepts < 0] = -1
        self._by_neighbours(vectors, concepts, columns)
        words.compare(names, there, columns[..., len(OF_VECTORS) :])
        told, missing = columns[..., _BEHIND], (concepts < 0)[..., None]
        columns[..., -len(BEHIND) :] = told - np.where(missing, -np.inf, told).max(1, keepdims=True, initial=-1.0)
        return concepts, columns

    def _found(self, vectors: Array, without: Places | None) -> tuple[Places, Places]:
        """The nearest concepts of mentions (Q, M), and the nearest entry of each."""
        cosines, entries = self.search.nearest(vectors, ENTRIES)
        if without is not None:
            cosines = np.where(entries == without[:, None], -2.0, cosines)
        owners = np.where(cosines > -2.0, self.tables.owners[entries], -1)
        concepts = np.full((len(vectors), CONCEPTS), -1, np.int64)
        nearest = np.zeros((len(vectors), CONCEPTS), np.int64)
        for at, (row, near) in enumerate(zip(owners.tolist(), entries.tolist(), strict=True)):
            first: dict[int, int] = {}
            for owner, entry in zip(row, near, strict=True):
                if owner >= 0 and owner not in first:
                    first[owner] = entry
                    if len(first) == CONCEPTS:
                        break
            concepts[at, : len(first)], nearest[at, : len(first)] = list(first), list(first.values())
        return concepts, nearest

    def _by_names(
        self, vectors: Array, concepts: Places, nearest: Places, without: Places | None, columns: Array
    ) -> Places:
        """Fill the columns of a concept's names; returns the two names that are nearest, (Q, M, 2), -1 for none."""
        tables = self.tables
        listed = tables.names_of[concepts].astype(np.int64)
        close = np.einsum("qmkp,qp->qmk", self.search.vectors(listed), vectors, optimize=True)
        close[listed < 0] = 0.0
        total, length, counts = close.sum(-1), tables.lengths[concepts], tables.counts[concepts]
        if without is not None:
            mine = (concepts == tables.owners[without][:, None]) & (listed == without[:, None, None]).any(-1)
            # A mention that is one of the names: their sum is told without it.
            length = np.sqrt(np.maximum(length**2 - mine * (2 * total - 1), 0.0))
            total, counts = total - mine, counts - (concepts == tables.owners[without][:, None])
            listed[listed == without[:, None, None]] = -1
        # A name that is nearest but not among those listed takes the place of the last of them.
        new = (nearest < int(tables.names)) & ~(listed == nearest[..., None]).any(-1)
        listed[..., -1] = np.where(new, nearest, listed[..., -1])
        row, column = np.nonzero(new)
        close[row, column, -1] = np.einsum("np,np->n", self.search.vectors(nearest[row, column]), vectors[row])
        close[listed < 0] = -1.0
        order = np.argsort(-close, axis=-1, kind="stable")[..., :2]
        columns[..., 0] = np.take_along_axis(close, order, -1)[..., 0]
        columns[..., 1] = total / np.maximum(length, 1e-6)
        columns[..., 4] = np.log(np.maximum(counts, 1))
        return np.take_along_axis(listed, order, -1)

    def _by_neighbours(self, vectors: Array, found: Places, columns: Array) -> None:
        """Fill the columns of definitions, children and parents, each parent by its first name."""
        tables, concepts = self.tables, np.maximum(found, 0)
        told, above = tables.told[concepts], tables.above[concepts]
        firsts = np.where(above >= 0, tables.names_of[above, 0], -1)
        entries = np.concatenate([told[..., None], firsts], -1)
        close = np.einsum("qmkp,qp->qmk", self.search.vectors(entries), vectors, optimize=True)
        close[entries < 0] = 0.0
        columns[..., 2], columns[..., 3] = close[..., 0], told >= 0
        columns[..., 5], columns[..., 6] = tables.children[concepts], close[..., 1:].max(-1)
        above[above < 0] = -2  # no parent is none of the concepts, and not the place where there is none
        # (Q, M, M): whether, of each concept, each other that is weighed is a parent
        under = (above[..., None] == found[:, None, None]).any(2)
        columns[..., 7], columns[..., 8] = under.any(2), np.log1p(under.sum(1))
