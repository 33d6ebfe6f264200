"""Orders drawn from a key of whole numbers: the same key gives the same order in every process and on every resume."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=16)  # a step asks for its streams' again: an epoch's, a curriculum's classes', the earlier runs'
def permutation(number: int, *key: int) -> np.ndarray:
    """The indices below `number` in an order drawn from `key`, (number,); not to be written to."""
    return np.random.default_rng(key).permutation(number)
