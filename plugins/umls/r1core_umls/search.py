"""The nearest entries of a vector among those of a base. Torch-free.

Two steps in a base of up to half a million names, of which every entry is compared by a matrix product: the leading
axes, at length 1, choose some entries, and all axes put these in order. Against 64 leading axes and 96 entries, 48 and
56 find the right concept of HPO's development names among the nearest five as often, and among the nearest sixteen
one time less in a hundred.

In a larger base entries stand in cells by their nearest centre, as four bits for two axes, and only the cells whose
centres are nearest to the mention are compared (Jegou et al. 2011, "Product quantization for nearest neighbor search":
an inverted file of product codes), by faiss (Douze et al. 2024, "The Faiss library"); those that seem nearest are then
compared exactly. Approximate. At nine million names it takes a third of the time and of the memory of one byte an axis.
"""

# E = entries, P = axes, Q = queries, K = results

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_umls.encoder import unit
from r1core_umls.tables import MANY, Tables, let_go

if TYPE_CHECKING:
    import faiss

LEADING = 48  # axes; in cells, all of them
RUN, RUNS = 32, 1024  # entries of a run, at most; runs below which there are no shared ones
QUERIES = 128  # at a time: their cosines with 36,000 entries take 18 MB
TOLD = 0.95  # of a definition's cosine, against a name's
PROBED = 512  # cells of which the entries are compared
REFINED = 512  # entries that are then compared exactly
TRAINED_ON = 40  # entries a cell that the centres are made of
ROWS = 65536
FILE = "cells.faiss"
Array = NDArray[np.float32]


class Nearest:
    """Finds entries.

    Parameters
    ----------
    tables : the entries, of which definitions count less, by `TOLD`.
    cells : as `cells_of` made it, for a base of more than `MANY` names; made here where it is absent.
    exact : of up to `MANY` names, compare by all axes and sort them all, at some four times the cost.
    """

    def __init__(self, tables: Tables, cells: faiss.Index | None = None, *, exact: bool = False) -> None:
        self.names, self.entries = int(tables.names), tables.entries
        self._width = tables.entries.shape[1] if exact else _width(tables)
        self._index: _All | _Cells
        if int(tables.names) > MANY:
            self._index = _Cells(cells or cells_of(tables))
        else:
            self.entries = self.entries.astype(np.float32)
            self._index = _All(_leading(tables, np.arange(len(tables.entries)), self._width), 1 if exact else RUN)

    def nearest(self, queries: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
        """Return the nearest entries, best first.

        Parameters
        ----------
        queries : (Q, P), each of length 1.

        Returns
        -------
        tuple : cosines (Q, K), of definitions times `TOLD`, and entries (Q, K). Where fewer were found, the cosine is
        -2 and the entry 0.
        """
        entries = self._index.nearest(unit(queries[:, : self._width]), k)
        cosines = np.matmul(self.vectors(entries), queries[..., None])[..., 0]
        cosines[entries >= self.names] *= TOLD
        cosines[entries < 0] = -2.0
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosines, order, 1), np.maximum(np.take_along_axis(entries, order, 1), 0)

    def vectors(self, entries: NDArray[np.integer]) -> Array:
        """Return the vectors of entries, (..., P); of -1 that of the last."""
        return np.take(self.entries, entries, 0, mode="wrap").astype(np.float32, copy=False)


class _All:
    """Compares every one of vectors (E, P) by a matrix product.

    They stand in runs, of which the nearest one goes on, so that a thousand numbers are sorted instead of tens of
    thousands. Names of one concept lie side by side, and so in different runs.
    """

    def __init__(self, vectors: Array, run: int) -> None:
        self._run = max(1, min(run, len(vectors) // RUNS))  # with 1, exact
        self._number, self._runs = len(vectors), -(-len(vectors) // self._run)
        # Padded to whole runs by vectors of zeros.
        self._columns = np.zeros((vectors.shape[1], self._runs * self._run), np.float32)
        self._columns[:, : self._number] = vectors.T

    def nearest(self, queries: Array, k: int) -> NDArray[np.int64]:
        """Return the nearest of each of the k runs that hold the nearest, in any order; -1 for none."""
        k = min(k, self._runs)
        found = np.empty((len(queries), k), np.int64)
        steps = np.arange(self._run) * self._runs
        room = np.empty((min(QUERIES, len(queries)), self._columns.shape[1]), np.float32)
        for first in range(0, len(queries), QUERIES):
            block = queries[first : first + QUERIES]
            scores = np.matmul(block, self._columns, out=room[: len(block)])
            scores[:, self._number :] = -2.0
            best = scores.reshape(len(block), self._run, self._runs).max(1)
            chosen = np.argpartition(best, self._runs - k, axis=1)[:, self._runs - k :]
            starts = np.arange(len(block))[:, None] * scores.shape[1] + chosen
            found[first : first + QUERIES] = chosen + np.take(scores, starts[..., None] + steps).argmax(-1) * self._runs
        return np.where(found < self._number, found, -1)


class _Cells:
    """Compares the vectors of the cells that lie nearest."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    def nearest(self, queries: Array, k: int) -> NDArray[np.int64]:
        """Return what seems nearest, `REFINED` or k, whichever is more; -1 for none."""
        found: NDArray[np.int64] = self._index.search(queries, max(k, REFINED))[1]
        return found


def cells_of(tables: Tables) -> faiss.Index:
    """Sort the entries of a large base into cells.

    Raises
    ------
    UserError : faiss is not installed.
    """
    library, width = faiss_installed(), _width(tables)
    number = 2 ** round(math.log2(3 * math.sqrt(len(tables.entries))))
    inner = library.METRIC_INNER_PRODUCT
    centres = library.IndexFlatIP(width)
    index = library.IndexIVFPQFastScan(centres, width, number, width // 2, 4, inner)
    index.own_fields = True  # the centres live as long as the index
    centres.this.disown()
    index.nprobe = PROBED
    draw = np.random.default_rng(0).choice(len(tables.entries), min(number * TRAINED_ON, len(tables.entries)), False)
    index.train(_leading(tables, np.sort(draw), width))
    for first in range(0, len(tables.entries), ROWS):
        index.add(_leading(tables, np.arange(first, min(first + ROWS, len(tables.entries))), width))
        let_go(tables.entries)
    return index


def save(index: faiss.Index, folder: Path) -> None:
    """Write cells into a folder."""
    faiss_installed().write_index(index, str(folder / FILE))


def load(folder: Path) -> faiss.Index | None:
    """Map the cells of a folder; None where it has none."""
    path = folder / FILE
    if not path.exists():
        return None
    library = faiss_installed()
    return library.read_index(str(path), library.IO_FLAG_MMAP)


def faiss_installed() -> ModuleType:
    """Return faiss.

    Raises
    ------
    UserError : it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError(
            f"a base of more than {MANY:,} names is searched by faiss, which is not installed",
            fix="pip install 'r1core-umls[large]'",
        ) from error
    return faiss


def _width(tables: Tables) -> int:
    axes = tables.entries.shape[1]
    return axes if int(tables.names) > MANY else min(LEADING, axes)


def _leading(tables: Tables, which: NDArray[np.int64], width: int) -> Array:
    vectors = unit(tables.entries[which, :width].astype(np.float32))
    vectors[which >= int(tables.names)] *= TOLD
    return vectors
