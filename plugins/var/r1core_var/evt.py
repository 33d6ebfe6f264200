"""Peaks over threshold: a generalised Pareto tail above a high quantile of the losses (McNeil, Frey and Embrechts
2015, 5.2).

The shape `xi` follows the convention of `scipy.stats.genpareto` (positive = heavy tail). The expected shortfall is
infinite for `xi >= 1` and refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from r1core import api
from r1core_var import quantiles
from r1core_var.checks import Array, NanPolicy, level_of, series
from r1core_var.values import Risk

THRESHOLD = 0.90  # share of losses below the threshold
LEAST_PEAKS = 20


@dataclass(frozen=True, slots=True)
class ParetoTail:
    """A fitted tail: losses above `threshold` exceed it by a generalised Pareto of `xi` and `scale`."""

    threshold: float
    xi: float
    scale: float
    peaks: int
    count: int
    loglikelihood: float

    def value_at_risk(self, level: float) -> float:
        """Quantile of the losses at a level above the threshold's (eq. 5.18)."""
        ratio = float(1 - level_of(level)) * self.count / self.peaks
        if ratio > 1.0:
            raise api.UserError(
                f"level {level:g} lies below the threshold of the tail (level {1 - self.peaks / self.count:.4g})",
                fix="lower the threshold",
            )
        growth = -np.log(ratio) if abs(self.xi) < 1e-12 else np.expm1(-self.xi * np.log(ratio)) / self.xi
        return float(self.threshold + self.scale * growth)

    def expected_shortfall(self, level: float) -> float:
        """Mean of the losses beyond that quantile (eq. 5.19)."""
        if self.xi >= 1.0:
            raise api.UserError(
                f"the fitted tail has no mean (xi = {self.xi:.3g})", fix="give more data or another threshold"
            )
        return float((self.value_at_risk(level) + self.scale - self.xi * self.threshold) / (1 - self.xi))


def fit_pareto(excesses: Array) -> tuple[float, float, float]:
    """Return xi, scale and log-likelihood of positive excesses by maximum likelihood.

    The scale is profiled out (Grimshaw 1993): for theta = xi / scale, xi is the mean of log(1 + theta x). The profile
    is searched on a grid and refined, over all theta > -1 / max x with xi >= -0.5 (below that the estimator is not
    regular).
    """
    x = np.asarray(excesses, dtype=np.float64)
    mean, largest = float(x.mean()), float(x.max())

    def profile(theta: float) -> tuple[float, float]:
        if abs(theta) * mean < 1e-10:
            return 0.0, -len(x) * (np.log(mean) + 1)
        xi = float(np.log1p(theta * x).mean())
        return xi, -len(x) * (np.log(xi / theta) + xi + 1)

    def loss(theta: float) -> float:
        xi, value = profile(theta)
        return -1e9 * xi if xi < -0.5 else -value  # finite, so that the search can interpolate

    lowest = -1 / largest * (1 - 1e-9)
    grid = np.concatenate([np.linspace(lowest, 0, 40), np.geomspace(1e-3, 20, 60) / mean])
    values = np.array([loss(theta) for theta in grid])
    at = int(np.argmin(values))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13 * (high - low)}
    )
    theta = float(found.x if found.fun <= values[at] else grid[at])
    xi, value = profile(theta)
    return xi, (mean if xi == 0.0 else xi / theta), value


def fit_tail(losses: npt.ArrayLike, *, threshold: float = THRESHOLD) -> ParetoTail:
    """Fit the tail of losses `(T,)` (positive = loss) above their empirical quantile at `threshold`.

    Raises
    ------
    api.UserError : for fewer than 20 losses above it, or losses above it that do not vary.
    """
    values = series(losses, name="losses", least=LEAST_PEAKS)
    u = quantiles.value_at_risk(values, threshold)
    excesses = values[values > u] - u
    if len(excesses) < LEAST_PEAKS:
        raise api.UserError(
            f"{len(excesses)} of {len(values)} losses lie above the threshold, expected at least {LEAST_PEAKS}",
            fix="give a longer series or a lower threshold",
        )
    xi, scale, loglik = fit_pareto(excesses)
    return ParetoTail(u, xi, scale, len(excesses), len(values), loglik)


def peaks_over_threshold(
    returns: npt.ArrayLike, level: float, *, threshold: float = THRESHOLD, nan_policy: NanPolicy = "refuse"
) -> Risk:
    """One-day value-at-risk and expected shortfall from a generalised Pareto tail of raw losses.

    For figures that follow the volatility of the day, fit the tail to filtered residuals (`filtered.filtered_pot`).
    """
    tail = fit_tail(-series(returns, nan_policy=nan_policy), threshold=threshold)
    words = f"peaks over threshold {tail.threshold:.4g} (quantile {threshold:g}), {tail.peaks} peaks, xi {tail.xi:.3f}"
    return Risk(tail.value_at_risk(level), tail.expected_shortfall(level), level, 1, words)
