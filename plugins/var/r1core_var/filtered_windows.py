"""Tail figures of rolling windows whose returns are first divided by their GARCH volatility; every window refitted.

For each window: standardised residuals under its own parameters, a tail of those residuals (empirical, generalised
Pareto or normal), times tomorrow's volatility, minus the mean (Barone-Adesi et al. 1999; McNeil and Frey 2000 for the
Pareto tail).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from r1core_var import evt, quantiles
from r1core_var.checks import Array
from r1core_var.distributions import Normal, location_scale
from r1core_var.garch_windows import BACKCAST_DAYS, BLOCK, WindowFits, backcast, fit_windows

Tail = Literal["empirical", "pareto", "normal"]


def window_residuals(returns: Array, fits: WindowFits, start: int, stop: int) -> Array:
    """Standardised residuals of windows `start` to `stop`, `(stop - start, window)`."""
    rows = np.lib.stride_tricks.sliding_window_view(returns, len(returns) - fits.window + 1)[:, start:stop]
    mu, omega, alpha, gamma, beta = (
        one[start:stop] for one in (fits.mu, fits.omega, fits.alpha, fits.gamma, fits.beta)
    )
    before = backcast((rows[:BACKCAST_DAYS] - rows.mean(axis=0)) ** 2)
    h = omega + (alpha + gamma / 2 + beta) * before
    residuals = np.empty(rows.shape)
    for t, row in enumerate(rows):
        e = row - mu
        residuals[t] = e / np.sqrt(h)
        h = omega + (alpha + gamma * (e < 0)) * e * e + beta * h
    return np.ascontiguousarray(residuals.T)


def residual_tail(losses: Array, level: float, tail: Tail) -> tuple[Array, Array]:
    """Value-at-risk and expected shortfall of standardised losses `(N, T)`, by row."""
    if tail == "normal":
        var, es = location_scale(Normal(), 0.0, 1.0, level)
        return np.full(len(losses), var), np.full(len(losses), es)
    if tail == "pareto":
        fitted = [evt.fit_tail(row) for row in losses]
        return (
            np.array([one.value_at_risk(level) for one in fitted]),
            np.array([one.expected_shortfall(level) for one in fitted]),
        )
    count = losses.shape[1]
    first, _, _ = quantiles.ranks(count, level)
    needed = count - min(first, count - quantiles.tail(count, level)[0] - 1)
    worst = np.sort(np.partition(losses, count - needed, axis=1)[:, count - needed :], axis=1)
    whole, part, mass = quantiles.tail(count, level)
    edge = part * worst[:, needed - whole - 1] if part else 0.0
    return worst[:, first - count + needed], (worst[:, needed - whole :].sum(axis=1) + edge) / mass


def garch_tail(
    returns: Array, window: int, level: float, *, asymmetric: bool = False, tail: Tail = "empirical"
) -> tuple[Array, Array]:
    """Value-at-risk and expected shortfall for the day after each window, two arrays `(T - window + 1,)`."""
    fits = fit_windows(returns, window, asymmetric=asymmetric)
    parts = []
    for start in range(0, len(fits.mu), BLOCK):
        stop = min(start + BLOCK, len(fits.mu))
        parts.append(residual_tail(-window_residuals(returns, fits, start, stop), level, tail))
    var, es = (np.concatenate(one) for one in zip(*parts, strict=True))
    deviation = np.sqrt(fits.next_variance)
    return deviation * var - fits.mu, deviation * es - fits.mu
