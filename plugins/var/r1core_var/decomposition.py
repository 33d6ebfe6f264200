"""What each position contributes: marginal, component and incremental value-at-risk and expected shortfall.

Both measures are homogeneous of degree one in the positions, so by Euler's theorem the components `w_i dR/dw_i` sum
to the total (Tasche 1999). For historical simulation the measure is a weighted mean of ordered scenario losses (an
L-estimator), and a component is the same weighted mean of the position's own losses in those scenarios: exact for
whatever weights. `neighbours` averages the quantile over scenarios around it, since one single scenario says little
of a position; the total is then that of the smoothed quantile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var import quantiles
from r1core_var.checks import Array, NanPolicy, level_of, matrix
from r1core_var.distributions import Normal, SkewedT, Standardised

Measure = Literal["value_at_risk", "expected_shortfall"]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Contributions of A positions to one figure; losses positive, in the unit of weight times return.

    Parameters
    ----------
    total : the portfolio's figure. marginal : `(A,)` its derivative by each position.
    component : `(A,)` position times marginal; they sum to `total`.
    incremental : `(A,)` `total` minus the figure without the position; they do not sum to it.
    """

    measure: Measure
    level: float
    total: float
    marginal: Array
    component: Array
    incremental: Array
    method: str


def parametric(
    weights: npt.ArrayLike,
    mean: npt.ArrayLike,
    covariance: npt.ArrayLike,
    level: float,
    measure: Measure = "value_at_risk",
    *,
    degrees: float | None = None,
) -> Decomposition:
    """Decompose the one-day figure of a portfolio of normal (or elliptical Student t) returns.

    Parameters
    ----------
    weights, mean : `(A,)`. covariance : `(A, A)` of the returns. degrees : of freedom of a t; None = normal.

    Raises
    ------
    api.UserError : for shapes that do not fit, values that are not finite, or a portfolio variance that is not
    positive.
    """
    w, mu, sigma = (np.asarray(one, dtype=np.float64) for one in (weights, mean, covariance))
    if w.ndim != 1 or mu.shape != w.shape or sigma.shape != (len(w), len(w)):
        raise api.UserError(
            f"found shapes weights {w.shape}, mean {mu.shape}, covariance {sigma.shape}", fix="give (A,), (A,), (A, A)"
        )
    if not all(np.isfinite(one).all() for one in (w, mu, sigma)):
        raise api.UserError("weights, mean or covariance hold values that are not finite", fix="mend them first")
    distribution: Standardised = Normal() if degrees is None else SkewedT(degrees)
    p = float(1 - level_of(level))
    factor = -float(distribution.quantile(p)) if measure == "value_at_risk" else -distribution.mean_below(p)

    def figure(positions: Array) -> float:
        variance = float(positions @ sigma @ positions)
        return float(factor * np.sqrt(max(variance, 0.0)) - positions @ mu)

    variance = float(w @ sigma @ w)
    if variance <= 0:
        raise api.UserError(f"the portfolio's variance is {variance:g}", fix="give a positive semidefinite covariance")
    marginal = factor * (sigma @ w) / np.sqrt(variance) - mu
    total = figure(w)
    without = np.array([figure(np.where(np.arange(len(w)) == i, 0.0, w)) for i in range(len(w))])
    words = "normal" if degrees is None else f"Student t, {degrees:g} degrees of freedom"
    return Decomposition(measure, level, total, marginal, w * marginal, total - without, words)


def historical(
    weights: npt.ArrayLike,
    returns: npt.ArrayLike,
    level: float,
    measure: Measure = "value_at_risk",
    *,
    neighbours: int = 0,
    nan_policy: NanPolicy = "refuse",
) -> Decomposition:
    """Decompose the one-day figure of a portfolio by historical simulation.

    Parameters
    ----------
    weights, returns : `(A,)` and `(T, A)`. neighbours : scenarios on either side over which the quantile is averaged.

    Raises
    ------
    api.UserError : for shapes that do not fit, values that are not finite, or no scenario beyond the level.
    """
    scenarios = -matrix(returns, nan_policy=nan_policy)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (scenarios.shape[1],):
        raise api.UserError(
            f"found weights of shape {w.shape} for {scenarios.shape[1]} assets", fix="give one weight an asset"
        )
    if not np.isfinite(w).all():
        raise api.UserError("weights hold values that are not finite", fix="mend them first")
    ranked = _rank_weights(len(scenarios), level, measure, neighbours)

    def figure(positions: Array) -> float:
        return float(ranked @ np.sort(scenarios @ positions))

    order = np.argsort(scenarios @ w, kind="stable")
    marginal = ranked @ scenarios[order]
    total = figure(w)
    without = np.array([figure(np.where(np.arange(len(w)) == i, 0.0, w)) for i in range(len(w))])
    words = f"historical, {len(scenarios)} scenarios, quantile {quantiles.DEFAULT}"
    if measure == "value_at_risk" and neighbours:
        words += f" averaged over {2 * neighbours + 1} scenarios"
    return Decomposition(measure, level, total, marginal, w * marginal, total - without, words)


def _rank_weights(count: int, level: float, measure: Measure, neighbours: int) -> Array:
    """Weights `(T,)` of the ascending losses whose weighted sum is the measure."""
    whole, part, mass = quantiles.tail(count, level)
    if mass < 1.0:
        raise api.UserError(f"{count} scenarios hold none beyond the {level:g} quantile", fix="give more scenarios")
    ranked = np.zeros(count)
    if measure == "expected_shortfall":
        ranked[count - whole :] = 1.0 / mass
        if part:
            ranked[count - whole - 1] = part / mass
        return ranked
    at = quantiles.ranks(count, level)[0]
    if neighbours < 0 or at - neighbours < 0 or at + neighbours >= count:
        raise api.UserError(f"{neighbours} neighbours reach beyond the {count} scenarios", fix="give fewer")
    ranked[at - neighbours : at + neighbours + 1] = 1.0 / (2 * neighbours + 1)
    return ranked
