"""The nearest names of a vector among all names of a base, exactly. Torch-free.

Cosines with every name are one matrix product for a block of queries. Of them only the largest of each run of names is
looked at first: the `k` best names lie in the `k` best runs, so the rest is never sorted.
"""

# N = names, D = width, Q = queries of a block, K = results

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RUN = 32  # names whose largest cosine stands for them
QUERIES = 64  # at a time: their cosines with 50,000 names take 13 MB


class NameVectors:
    """Vectors of names.

    Parameters
    ----------
    vectors : (N, D), each of length 1.
    """

    def __init__(self, vectors: NDArray[np.floating]) -> None:
        self.names = len(vectors)
        # Names are padded to whole runs by vectors of zeros, whose place is never given back.
        self._columns = np.zeros((-(-self.names // RUN) * RUN, vectors.shape[1]), np.float32)
        self._columns[: self.names] = vectors

    def nearest(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the `k` nearest names of each query, best first; equal cosines by the name's place.

        Parameters
        ----------
        queries : (any, D), each of length 1.

        Returns
        -------
        tuple : cosines (any, K) and places (any, K), K = min(k, N).
        """
        k = min(k, self.names)
        scores, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for first in range(0, len(queries), QUERIES):
            block = slice(first, first + QUERIES)
            scores[block], places[block] = self._block(queries[block], k)
        return scores, places

    def _block(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        cosines = queries @ self._columns.T
        cosines[:, self.names :] = -np.inf
        runs = cosines.reshape(len(queries), -1, RUN)
        best = runs.max(-1)
        wanted = min(k, best.shape[1])
        chosen = np.sort(np.argpartition(-best, wanted - 1, axis=1)[:, :wanted], axis=1)
        rows = np.arange(len(queries))[:, None]
        found = runs[rows, chosen].reshape(len(queries), -1)
        places = (chosen[:, :, None] * RUN + np.arange(RUN)).reshape(len(queries), -1)
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        return found[rows, order], places[rows, order]
