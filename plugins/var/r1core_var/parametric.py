"""Normal and Student t value-at-risk and expected shortfall, from moments or by maximum likelihood; losses positive.

Over h days the mean grows with h and the standard deviation with its square root (independent days). For the normal
that is exact; a sum of t returns is no t, so for it the one-day quantile is scaled, which overstates the tail.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from r1core import api
from r1core_var.checks import Array, NanPolicy, horizon_of, series
from r1core_var.distributions import Normal, SkewedT, location_scale
from r1core_var.values import Risk

MIN_DEGREES, MAX_DEGREES = 2.05, 500.0


def normal_risk(mean: float, deviation: float, level: float, *, horizon: int = 1) -> Risk:
    """Value-at-risk `z sd - mean` and expected shortfall `sd phi(z) / (1 - level) - mean` of normal returns.

    Parameters
    ----------
    mean, deviation : of the one-day return, in its unit.

    Raises
    ------
    api.UserError : for a negative deviation, a level or a horizon that there is not.
    """
    days = horizon_of(horizon)
    if not (np.isfinite(mean) and np.isfinite(deviation) and deviation >= 0):
        raise api.UserError(f"found mean {mean} and deviation {deviation}", fix="give finite numbers, deviation >= 0")
    var, es = location_scale(Normal(), mean * days, deviation * np.sqrt(days), level)
    return Risk(var, es, level, days, f"normal, mean {mean:.4g}, standard deviation {deviation:.4g}")


def normal(returns: npt.ArrayLike, level: float, *, horizon: int = 1, nan_policy: NanPolicy = "refuse") -> Risk:
    """Normal figures with the sample's mean and standard deviation (divisor T - 1)."""
    values = series(returns, nan_policy=nan_policy, least=2)
    return normal_risk(float(values.mean()), float(values.std(ddof=1)), level, horizon=horizon)


def fit_student_t(returns: npt.ArrayLike, *, nan_policy: NanPolicy = "refuse") -> tuple[float, float, float]:
    """Return mean, standard deviation and degrees of freedom of a t by maximum likelihood (degrees in [2.05, 500]).

    Raises
    ------
    api.UserError : for fewer than 10 returns, returns without variation, or a likelihood whose search fails.
    """
    values = series(returns, nan_policy=nan_policy, least=10)
    centre, spread = float(values.mean()), float(values.std())
    if spread == 0.0:
        raise api.UserError("returns: all are equal, so there is no distribution to fit", fix="check the series")
    z = (values - centre) / spread

    def objective(x: Array) -> tuple[float, Array]:
        mu, log_sigma, log_excess = x
        nu = 2.0 + np.exp(log_excess)
        u = (z - mu) / np.exp(log_sigma)
        y2 = u * u / (nu - 2)
        log_sum = np.log1p(y2)
        value = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(np.pi * (nu - 2)) - log_sigma
        pull = (nu + 1) * u / (nu - 2 + u * u)
        by_nu = 0.5 * (special.digamma((nu + 1) / 2) - special.digamma(nu / 2)) - 0.5 / (nu - 2)
        by_nu = by_nu - 0.5 * log_sum + 0.5 * (nu + 1) / (nu - 2) * y2 / (1 + y2)
        gradient = np.array([pull.mean() / np.exp(log_sigma), (pull * u).mean() - 1.0, by_nu.mean() * (nu - 2)])
        return float(-(value - 0.5 * (nu + 1) * log_sum.mean())), -gradient

    limits = [(-3.0, 3.0), (-5.0, 5.0), (np.log(MIN_DEGREES - 2), np.log(MAX_DEGREES - 2))]
    best = min(
        (
            optimize.minimize(
                objective,
                [0.0, 0.0, np.log(nu - 2)],
                jac=True,
                bounds=limits,
                method="L-BFGS-B",
                options={"ftol": 1e-14, "gtol": 1e-9},
            )
            for nu in (4.0, 30.0)
        ),
        key=lambda found: float(found.fun),
    )
    if not np.isfinite(best.fun):
        raise api.UserError("the likelihood of the t could not be maximised", fix="check the series for outliers")
    return centre + spread * best.x[0], spread * float(np.exp(best.x[1])), 2.0 + float(np.exp(best.x[2]))


def student_t(returns: npt.ArrayLike, level: float, *, horizon: int = 1, nan_policy: NanPolicy = "refuse") -> Risk:
    """Student t figures, fitted by maximum likelihood."""
    days = horizon_of(horizon)
    mean, deviation, degrees = fit_student_t(returns, nan_policy=nan_policy)
    var, es = location_scale(SkewedT(degrees), mean * days, deviation * np.sqrt(days), level)
    return Risk(
        var, es, level, days, f"Student t, {degrees:.4g} degrees of freedom, standard deviation {deviation:.4g}"
    )
