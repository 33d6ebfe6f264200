"""GARCH(1,1) and GJR-GARCH(1,1) of one series with normal, Student t or Hansen's skewed t innovations.

Constant mean, maximum likelihood by SLSQP with the exact gradient of mean and variance (the shapes' by central
differences), under the bounds, constraints and backcast of `arch`. The series is scaled to unit variance while
fitting, so its unit does not matter. For the refit of thousands of rolling windows see `garch_windows`. No standard
errors, no other orders, no exogenous mean.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from r1core import api
from r1core_var.checks import Array, NanPolicy, series
from r1core_var.distributions import DistributionName, Standardised, location_scale, standardised
from r1core_var.garch_windows import backcast
from r1core_var.volatility import garch_variance, recursion

LEAST_RETURNS = 100
_SHAPES: dict[DistributionName, tuple[tuple[float, float, float], ...]] = {  # start and limits
    "normal": (),
    "t": ((8.0, 2.05, 500.0),),
    "skewt": ((8.0, 2.05, 300.0), (-0.05, -0.999, 0.999)),
}


@dataclass(frozen=True, slots=True)
class GarchFit:
    """A fitted model; variances in squared units of the returns that were given.

    `variance` is `(T + 1,)`: its last value is the forecast for the next day. `residuals` are standardised, `(T,)`.
    """

    distribution: DistributionName
    mu: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    shape: tuple[float, ...]
    loglikelihood: float
    variance: Array
    residuals: Array

    @property
    def persistence(self) -> float:
        """How much of a shock to the variance is left after a day: `alpha + gamma / 2 + beta`."""
        return self.alpha + self.gamma / 2 + self.beta

    @property
    def innovations(self) -> Standardised:
        """The fitted distribution of the standardised residuals."""
        return standardised(self.distribution, self.shape)

    def variance_forecasts(self, horizon: int) -> Array:
        """Expected variance of each of the next `horizon` days, `(horizon,)` (symmetric innovations for GJR)."""
        drift = self.omega + np.zeros(horizon - 1)
        return recursion(drift, self.persistence, float(self.variance[-1]))

    def one_day(self, level: float) -> tuple[float, float]:
        """Value-at-risk and expected shortfall of the next day under the fitted distribution; losses positive."""
        return location_scale(self.innovations, self.mu, float(np.sqrt(self.variance[-1])), level)


class _Likelihood:
    """Minus the mean log-likelihood and its gradient, over (mu, omega, alpha[, gamma], beta, *shape)."""

    def __init__(self, z: Array, asymmetric: bool, distribution: DistributionName) -> None:
        self.z, self.asymmetric, self.distribution = z, asymmetric, distribution
        self.before = float(backcast((z - z.mean()) ** 2))
        self.variance_size = 5 if asymmetric else 4

    def split(self, x: Array) -> tuple[float, float, float, float, float, Array]:
        gamma = float(x[3]) if self.asymmetric else 0.0
        size = self.variance_size
        return float(x[0]), float(x[1]), float(x[2]), gamma, float(x[size - 1]), x[size:]

    def __call__(self, x: Array) -> tuple[float, Array]:
        mu, omega, alpha, gamma, beta, shape = self.split(x)
        e = self.z - mu
        down = e < 0
        squares = e * e
        h = garch_variance(e, omega, alpha, gamma, beta, self.before)[:-1]
        deviation = np.sqrt(h)
        u = e / deviation
        innovations = standardised(self.distribution, shape)
        value = innovations.logpdf(u).mean() - 0.5 * np.log(h).mean()
        slope = innovations.slope(u)
        by_h = -0.5 * (1 + u * slope) / h
        news = alpha + gamma * down
        drives = [-2 * news * e, np.ones_like(e), squares]
        firsts = [0.0, 1.0, self.before]
        if self.asymmetric:
            drives.append(squares * down)
            firsts.append(self.before / 2)
        drives.append(h)
        firsts.append(self.before)
        gradient = [
            by_h @ recursion(drive[:-1], beta, first) / len(e) for drive, first in zip(drives, firsts, strict=True)
        ]
        gradient[0] -= (slope / deviation).mean()
        for at in range(len(shape)):
            width = 1e-5 * max(1.0, abs(float(shape[at])))
            ends = []
            for sign in (1, -1):
                moved = shape.copy()
                moved[at] += sign * width
                ends.append(standardised(self.distribution, moved).logpdf(u).mean())
            gradient.append((ends[0] - ends[1]) / (2 * width))
        return -float(value), -np.array(gradient)


def _starts(likelihood: _Likelihood) -> list[Array]:
    shape = [start for start, _, _ in _SHAPES[likelihood.distribution]]
    found = []
    for news, persistence in itertools.product((0.02, 0.05, 0.1, 0.2), (0.8, 0.95, 0.98, 0.995)):
        middle = [news / 2, news] if likelihood.asymmetric else [news]
        x = np.array([likelihood.z.mean(), 1 - persistence, *middle, persistence - news, *shape])
        found.append((likelihood(x)[0], x))
    found.sort(key=lambda one: one[0])
    return [x for _, x in found[:3]]


def fit(
    returns: npt.ArrayLike,
    *,
    asymmetric: bool = False,
    distribution: DistributionName = "normal",
    nan_policy: NanPolicy = "refuse",
) -> GarchFit:
    """Fit GARCH(1,1), or GJR-GARCH(1,1) where `asymmetric`, by maximum likelihood.

    Parameters
    ----------
    returns : `(T,)` in any unit; at least 100.

    Raises
    ------
    api.UserError : for too few returns, returns that do not vary, or a search that ends without an optimum.
    """
    values = series(returns, nan_policy=nan_policy, least=LEAST_RETURNS)
    scale = float(values.std())
    if scale == 0.0:
        raise api.UserError("returns: all are equal, so there is no volatility to fit", fix="check the series")
    likelihood = _Likelihood(values / scale, asymmetric, distribution)
    limits = [(-10.0, 10.0), (1e-8, 10.0), (0.0, 1.0), *([(-1.0, 2.0)] if asymmetric else []), (0.0, 1.0)]
    limits += [(low, high) for _, low, high in _SHAPES[distribution]]
    half = [0.5] if asymmetric else []
    weights = np.array([0.0, 0.0, 1.0, *half, 1.0, *([0.0] * len(_SHAPES[distribution]))])
    constraints = [{"type": "ineq", "fun": lambda x: 1.0 - weights @ x, "jac": lambda x: -weights}]
    if asymmetric:
        both = np.zeros_like(weights)
        both[2:4] = 1.0
        constraints.append({"type": "ineq", "fun": lambda x: both @ x, "jac": lambda x: both})
    best = None
    for start in _starts(likelihood):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)
            found = optimize.minimize(
                likelihood,
                start,
                jac=True,
                method="SLSQP",
                bounds=limits,
                constraints=constraints,
                options={"ftol": 1e-12, "maxiter": 500},
            )
        if np.isfinite(found.fun) and (best is None or found.fun < best.fun - 1e-12):
            best = found
    if best is None:
        raise api.UserError("the GARCH likelihood could not be maximised", fix="check the series for outliers")
    mu, omega, alpha, gamma, beta, shape = likelihood.split(best.x)
    variance = garch_variance(likelihood.z - mu, omega, alpha, gamma, beta, likelihood.before)
    residuals = (likelihood.z - mu) / np.sqrt(variance[:-1])
    loglik = -len(values) * (float(best.fun) + np.log(scale))
    return GarchFit(
        distribution, mu * scale, omega * scale**2, alpha, gamma, beta, tuple(map(float, shape)), loglik,
        variance * scale**2, residuals,
    )  # fmt: skip
