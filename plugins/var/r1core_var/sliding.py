"""Quantiles and tail means of every rolling window, without sorting any window whole.

What is notable: windows are taken in blocks. All windows of a block share a core, of which only the largest few can
ever matter; what differs are the few observations at either end. So each window sorts (tail + block) values instead
of all. Exact, ties included.
"""

from __future__ import annotations

import numpy as np

from r1core_var import quantiles
from r1core_var.checks import Array

BLOCK = 40  # windows that share a core; measured best for windows of 250 to 1,000


def rolling_tail(
    losses: Array, window: int, level: float, method: quantiles.QuantileMethod = quantiles.DEFAULT
) -> tuple[Array, Array]:
    """Value-at-risk and expected shortfall of each window of losses `(T,)`: two arrays `(T - window + 1,)`.

    Element n is of `losses[n : n + window]`. Losses are finite and positive = loss; conventions as in `quantiles`.

    Raises
    ------
    ValueError : where there are fewer losses than one window.
    """
    if not 1 <= window <= len(losses):
        raise ValueError(f"{len(losses)} losses do not hold a window of {window}")
    first, second, weight = quantiles.ranks(window, level, method)
    whole, part, mass = quantiles.tail(window, level)
    needed = window - min(first, window - whole - 1)  # how many of the largest hold every rank that is read
    block = min(BLOCK, window - needed + 1)
    if block < 2:
        ordered = np.sort(np.lib.stride_tricks.sliding_window_view(losses, window), axis=1)
    else:
        ordered = _largest(losses, window, needed, block)
    width = ordered.shape[1]
    first, second = first - window + width, second - window + width
    var = ordered[:, first] + weight * (ordered[:, second] - ordered[:, first])
    edge = part * ordered[:, width - whole - 1] if part else 0.0
    return var, (ordered[:, width - whole :].sum(axis=1) + edge) / mass


def _largest(losses: Array, window: int, needed: int, block: int) -> Array:
    """The `needed` largest losses of each window, ascending, `(N, needed)`."""
    count, ends = len(losses) - window + 1, block - 1
    starts = np.arange(0, count, block)
    padded = np.concatenate([losses, np.full(block, -np.inf)])
    cores = np.lib.stride_tricks.sliding_window_view(losses, window - ends)[starts + ends]
    cores = np.partition(cores, window - ends - needed, axis=1)[:, window - ends - needed :]
    left = np.lib.stride_tricks.sliding_window_view(padded, ends)[starts]
    right = np.lib.stride_tricks.sliding_window_view(padded, ends)[starts + window]
    # window j of a block holds left[j:] and right[:j], which lie side by side
    varying = np.lib.stride_tricks.sliding_window_view(np.concatenate([left, right], axis=1), ends, axis=1)
    candidates = np.empty((len(starts), block, needed + ends))
    candidates[:, :, :needed] = cores[:, None, :]
    candidates[:, :, needed:] = varying
    flat = candidates.reshape(-1, needed + ends)[:count]
    flat.partition(ends, axis=1)
    best = flat[:, ends:]
    best.sort(axis=1)
    return best
