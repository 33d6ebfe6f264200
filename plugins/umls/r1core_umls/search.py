"""The nearest entries of a vector among all of a base, by one matrix product for a block of queries. Torch-free.

Entries stand in runs, of which only the nearest goes on, so that a thousand numbers are sorted instead of tens of
thousands. Those of one concept lie side by side, and so in different runs.
"""

# E = entries, P = axes, Q = queries of a block, K = results

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from r1core_umls.tables import TOLD, Tables

RUN, RUNS = 32, 1024  # entries of a run, at most; runs below which there are no shared ones
QUERIES = 64  # at a time: their cosines with 35,000 entries take 9 MB
Array = NDArray[np.float32]


class Exact:
    """Looks at every entry.

    Parameters
    ----------
    tables : entries, of which definitions count less, by `TOLD`.
    run : entries of a run; by default 1 for a small base, where the search is exact.
    """

    def __init__(self, tables: Tables, run: int | None = None) -> None:
        self._run = run or max(1, min(RUN, len(tables.entries) // RUNS))
        self._number, self._runs = len(tables.entries), -(-len(tables.entries) // self._run)
        # Padded to whole runs by vectors of zeros.
        self._columns = np.zeros((tables.entries.shape[1], self._runs * self._run), np.float32)
        self._columns[:, : self._number] = tables.entries.T
        self._columns[:, int(tables.names) :] *= TOLD

    def nearest(self, queries: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
        """Return the nearest entry of each of the `k` runs that hold the nearest, best first.

        Parameters
        ----------
        queries : (any, P), each of length 1.

        Returns
        -------
        tuple : cosines (any, K), of definitions times `TOLD`, and entries (any, K); K = min(k, runs). Where there
        is nothing, the cosine is -2 and the entry 0.
        """
        k = min(k, self._runs)
        cosines, entries = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        room = np.empty((min(QUERIES, len(queries)), self._columns.shape[1]), np.float32)
        for first in range(0, len(queries), QUERIES):
            block = queries[first : first + QUERIES]
            scores = np.matmul(block, self._columns, out=room[: len(block)])
            scores[:, self._number :] = -2.0
            runs = scores.reshape(len(block), self._run, self._runs)
            best = runs.max(1)
            chosen = np.argpartition(best, self._runs - k, axis=1)[:, self._runs - k :]
            found = np.take_along_axis(best, chosen, 1)
            order = np.argsort(-found, axis=1, kind="stable")
            chosen = np.take_along_axis(chosen, order, 1)
            inside = np.take_along_axis(runs, chosen[:, None], 2).argmax(1)
            cosines[first : first + QUERIES] = np.take_along_axis(found, order, 1)
            entries[first : first + QUERIES] = inside * self._runs + chosen
        return cosines, np.where(cosines > -2.0, entries, 0)
