"""Every model as a rolling forecaster: figures for the day after each window, from that window's past only.

A roller takes returns `(T,)`, a window, a level and how many days a fit is kept (`refit`), and gives value-at-risk
and expected shortfall `(T - window + 1,)`; element n is for day `n + window`. GARCH and GJR with normal likelihood,
and all that is filtered with them, are refitted every day whatever `refit` says, since that costs seconds; the
recursion itself moves every day in all of them.

The default model is fixed: see `DEFAULT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var import evt
from r1core_var.checks import Array, NanPolicy, level_of, series
from r1core_var.distributions import DistributionName, Normal, SkewedT, location_scale
from r1core_var.filtered_windows import garch_tail
from r1core_var.garch import GarchFit, fit
from r1core_var.garch_windows import backcast
from r1core_var.parametric import fit_student_t
from r1core_var.sliding import rolling_tail
from r1core_var.values import Forecasts
from r1core_var.volatility import ewma_variance, garch_variance

Pair = tuple[Array, Array]
Roller = Callable[[Array, int, float, int], Pair]
WINDOW, LEAST_WINDOW = 1000, 100
# Fixed on the first 1,500 returns of the S&P 500 and the NASDAQ (arch's data) by `benchmarks/var_backtest.py
# --choose`: the best mean pinball at 95, 97.5 and 99 % on days 500 to 1,499 with a window of 500; then the best
# window of 250 to 1,000 on days 1,000 to 1,499.
DEFAULT = "fhs-combined"


def _historical(returns: Array, window: int, level: float, refit: int) -> Pair:
    return rolling_tail(-returns, window, level)


def _normal(returns: Array, window: int, level: float, refit: int) -> Pair:
    windows = np.lib.stride_tricks.sliding_window_view(returns, window)
    var, es = location_scale(Normal(), 0.0, 1.0, level)
    mean, deviation = windows.mean(axis=1), windows.std(axis=1, ddof=1)
    return deviation * var - mean, deviation * es - mean


def _student_t(returns: Array, window: int, level: float, refit: int) -> Pair:
    windows = np.lib.stride_tricks.sliding_window_view(returns, window)
    pairs = np.empty((len(windows), 2))
    for n, one in enumerate(windows):
        if n % refit == 0:
            mean, deviation, degrees = fit_student_t(one)
            pairs[n] = location_scale(SkewedT(degrees), mean, deviation, level)
        else:
            pairs[n] = pairs[n - 1]
    return pairs[:, 0], pairs[:, 1]


def _ewma(returns: Array, window: int, level: float, refit: int) -> Pair:
    deviation = np.sqrt(ewma_variance(returns)[window:])
    var, es = location_scale(Normal(), 0.0, 1.0, level)
    return deviation * var, deviation * es


def _ewma_filtered(returns: Array, window: int, level: float, refit: int) -> Pair:
    deviation = np.sqrt(ewma_variance(returns))
    var, es = rolling_tail(-returns / deviation[:-1], window, level)
    return deviation[window:] * var, deviation[window:] * es


def _combined(returns: Array, window: int, level: float, refit: int) -> Pair:
    slow = _ewma_filtered(returns, window, level, refit)
    fitted = garch_tail(returns, window, level, asymmetric=True)
    return (slow[0] + fitted[0]) / 2, (slow[1] + fitted[1]) / 2


def _pareto(returns: Array, window: int, level: float, refit: int) -> Pair:
    pairs = np.empty((len(returns) - window + 1, 2))
    for n, one in enumerate(np.lib.stride_tricks.sliding_window_view(-returns, window)):
        if n % refit == 0:
            tail = evt.fit_tail(one)
            pairs[n] = tail.value_at_risk(level), tail.expected_shortfall(level)
        else:
            pairs[n] = pairs[n - 1]
    return pairs[:, 0], pairs[:, 1]


def next_variance(fitted: GarchFit, returns: Array) -> float:
    """Variance for the day after `returns`, filtered with the parameters of an earlier fit."""
    before = float(backcast((returns - returns.mean()) ** 2))
    path = garch_variance(returns - fitted.mu, fitted.omega, fitted.alpha, fitted.gamma, fitted.beta, before)
    return float(path[-1])


def _garch_shaped(
    returns: Array, window: int, level: float, refit: int, *, asymmetric: bool, distribution: DistributionName
) -> Pair:
    windows = np.lib.stride_tricks.sliding_window_view(returns, window)
    pairs = np.empty((len(windows), 2))
    fitted: GarchFit | None = None
    unit = (0.0, 0.0)
    for n, one in enumerate(windows):
        if fitted is None or n % refit == 0:
            fitted = fit(one, asymmetric=asymmetric, distribution=distribution)
            unit = location_scale(fitted.innovations, 0.0, 1.0, level)
        deviation = np.sqrt(next_variance(fitted, one))
        pairs[n] = deviation * unit[0] - fitted.mu, deviation * unit[1] - fitted.mu
    return pairs[:, 0], pairs[:, 1]


def _garch(
    returns: Array,
    window: int,
    level: float,
    refit: int,
    *,
    asymmetric: bool,
    tail: Literal["empirical", "pareto", "normal"],
) -> Pair:
    return garch_tail(returns, window, level, asymmetric=asymmetric, tail=tail)


ROLLERS: Mapping[str, Roller] = {
    "historical": _historical,
    "normal": _normal,
    "student-t": _student_t,
    "ewma": _ewma,
    "pot": _pareto,
    "garch": partial(_garch, asymmetric=False, tail="normal"),
    "gjr": partial(_garch, asymmetric=True, tail="normal"),
    "garch-t": partial(_garch_shaped, asymmetric=False, distribution="t"),
    "garch-skewt": partial(_garch_shaped, asymmetric=False, distribution="skewt"),
    "gjr-skewt": partial(_garch_shaped, asymmetric=True, distribution="skewt"),
    "fhs-ewma": _ewma_filtered,
    "fhs-garch": partial(_garch, asymmetric=False, tail="empirical"),
    "fhs-gjr": partial(_garch, asymmetric=True, tail="empirical"),
    "fhs-combined": _combined,
    "pot-gjr": partial(_garch, asymmetric=True, tail="pareto"),
}
SUMMARIES: Mapping[str, str] = {
    "historical": "empirical quantile of the window's returns",
    "normal": "normal, mean and deviation of the window",
    "student-t": "Student t by maximum likelihood",
    "ewma": "normal with RiskMetrics volatility (decay 0.94, mean 0)",
    "pot": "generalised Pareto tail above the 90 % quantile of raw losses",
    "garch": "GARCH(1,1), normal",
    "gjr": "GJR-GARCH(1,1), normal",
    "garch-t": "GARCH(1,1), Student t",
    "garch-skewt": "GARCH(1,1), Hansen's skewed t",
    "gjr-skewt": "GJR-GARCH(1,1), Hansen's skewed t",
    "fhs-ewma": "filtered historical simulation, RiskMetrics volatility",
    "fhs-garch": "filtered historical simulation, GARCH(1,1)",
    "fhs-gjr": "filtered historical simulation, GJR-GARCH(1,1)",
    "fhs-combined": "mean of fhs-ewma and fhs-gjr; the default",
    "pot-gjr": "generalised Pareto tail of GJR-GARCH(1,1) residuals",
}


def roller(model: str) -> Roller:
    """Return the roller of this name.

    Raises
    ------
    api.UserError : for a name that there is not.
    """
    if model not in ROLLERS:
        raise api.UserError(f"no model {model!r}", fix=f"use one of {', '.join(ROLLERS)}")
    return ROLLERS[model]


def checked(returns: npt.ArrayLike, window: int, level: float, *, days: int, nan_policy: NanPolicy = "refuse") -> Array:
    """Return returns that hold a window and `days` more, with at least one observation beyond the level in a window.

    Raises
    ------
    api.UserError : for too short a series or window, or values that are not finite.
    """
    least = max(int(np.ceil(float(1 / (1 - level_of(level))))), LEAST_WINDOW)
    if window < least:
        raise api.UserError(f"a window of {window} days is too short for level {level:g}", fix=f"use at least {least}")
    values = series(returns, nan_policy=nan_policy)
    if len(values) < window + days:
        raise api.UserError(
            f"{len(values)} returns are too few: a window of {window} days and {days} to forecast need {window + days}",
            fix="give a longer series or a shorter window (--window)",
        )
    if (values.max() == values.min()) or (
        np.ptp(np.lib.stride_tricks.sliding_window_view(values, window), axis=1) == 0
    ).any():
        raise api.UserError("returns do not vary over a whole window", fix="check the series for a stale price")
    return values


def forecast(
    returns: npt.ArrayLike,
    *,
    model: str = DEFAULT,
    level: float = 0.99,
    window: int = WINDOW,
    refit: int = 20,
    nan_policy: NanPolicy = "refuse",
) -> Forecasts:
    """Forecast every day that has a window of days before it; one day ahead, losses positive, in the unit of the
    returns.

    Parameters
    ----------
    returns : `(T,)` daily. window : days that each forecast is made from. refit : days that a Student t, skewed t or
        raw Pareto fit is kept.

    Raises
    ------
    api.UserError : for an unknown model, too few returns, or values that are not finite.
    """
    make, values = roller(model), checked(returns, window, level, days=1, nan_policy=nan_policy)
    if refit < 1:
        raise api.UserError(f"found refit {refit}, expected days", fix="write 1 to refit every day")
    var, es = make(values, window, level, refit)
    return Forecasts(model, level, window, window, -values[window:], var[:-1], es[:-1])
