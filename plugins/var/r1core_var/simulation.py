"""Monte Carlo: paths of a GARCH filter over several days, and normal or Student t risk factors of a portfolio.

Random numbers come from `(seed, index)` alone, never from a global generator: the same call gives the same figure.
The Monte Carlo error of a quantile is part of `Risk.method`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var import quantiles
from r1core_var.checks import Array, horizon_of, level_of
from r1core_var.historical import ReturnKind
from r1core_var.values import Risk

PATHS = 20_000


def generator(seed: int, index: int = 0) -> np.random.Generator:
    """Return the generator of draw number `index` of a run's seed."""
    return np.random.default_rng([seed, index])


def garch_paths(
    draws: Array, *, mu: float, omega: float, alpha: float, gamma: float, beta: float, variance: float
) -> Array:
    """Return simulated daily returns `(paths, days)` from standardised draws of the same shape.

    `variance` is the forecast for the first day; each following one feels the return before it.
    """
    returns = np.empty_like(draws)
    h = np.full(len(draws), variance)
    for day in range(draws.shape[1]):
        e = np.sqrt(h) * draws[:, day]
        returns[:, day] = mu + e
        h = omega + (alpha + gamma * (e < 0)) * e * e + beta * h
    return returns


def compounded(paths: Array, kind: ReturnKind) -> Array:
    """Return over the whole horizon of each path `(paths,)`.

    Simple returns multiply as fractions, none losing more than everything; log returns add.
    """
    if kind == "log":
        return np.asarray(paths.sum(axis=1))
    return np.asarray(np.prod(1.0 + np.maximum(paths, -1.0), axis=1) - 1.0)


def quantile_error(losses: Array, level: float) -> float:
    """Monte Carlo standard error of the `level` quantile, from order statistics one binomial deviation around it."""
    ordered, count = np.sort(losses), len(losses)
    spread = np.sqrt(count * level * (1 - level))
    low, high = int(count * level - spread), min(int(count * level + spread) + 1, count - 1)
    return float((ordered[high] - ordered[low]) / 2)


def monte_carlo(
    mean: npt.ArrayLike,
    covariance: npt.ArrayLike,
    weights: npt.ArrayLike,
    level: float,
    *,
    horizon: int = 1,
    degrees: float | None = None,
    paths: int = PATHS,
    seed: int = 0,
) -> Risk:
    """Value-at-risk and expected shortfall of a portfolio under simulated normal or Student t daily returns.

    Days are independent and their returns add (log returns, or small simple ones).

    Parameters
    ----------
    mean, covariance, weights : `(A,)`, `(A, A)`, `(A,)`; the covariance is that of the returns, for a t as well.
    degrees : of freedom of a multivariate t, above 2; None = normal.

    Raises
    ------
    api.UserError : for shapes that do not fit, a covariance that is not positive semidefinite, degrees of 2 or less.
    """
    level_of(level)
    days = horizon_of(horizon)
    mu, sigma, w = (np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (mean, covariance, weights))
    if sigma.shape != (len(w), len(w)) or mu.shape != w.shape:
        raise api.UserError(
            f"found shapes mean {mu.shape}, covariance {sigma.shape}, weights {w.shape}",
            fix="give (A,), (A, A) and (A,)",
        )
    if not all(np.isfinite(one).all() for one in (mu, sigma, w)):
        raise api.UserError("mean, covariance or weights hold values that are not finite", fix="mend them first")
    if degrees is not None and degrees <= 2:
        raise api.UserError(f"a t with {degrees:g} degrees of freedom has no variance", fix="give more than 2")
    values, vectors = np.linalg.eigh(sigma)
    if not np.allclose(sigma, sigma.T) or values[0] < -1e-10 * max(values[-1], 0.0):
        raise api.UserError("the covariance is not positive semidefinite", fix="estimate it from one complete sample")
    # the portfolio sees one combination of the factors only; drawing that one would hide the joint tail of the t
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    total = np.zeros(paths)
    for day in range(days):
        rng = generator(seed, day)
        z = rng.standard_normal((paths, len(w)))
        if degrees is not None:
            z *= np.sqrt((degrees - 2) / rng.chisquare(degrees, size=(paths, 1)))
        total += (z @ root.T + mu) @ w
    return from_draws(-total, level, days, "normal" if degrees is None else f"Student t ({degrees:g})", seed)


def from_draws(losses: Array, level: float, horizon: int, what: str, seed: int) -> Risk:
    """Figures of simulated losses `(paths,)`, with their Monte Carlo error in words."""
    error = quantile_error(losses, level)
    words = f"Monte Carlo of {what}, {len(losses)} paths, seed {seed}, standard error of the quantile {error:.2g}"
    var, es = quantiles.value_at_risk(losses, level), quantiles.expected_shortfall(losses, level)
    return Risk(var, es, level, horizon, words)
