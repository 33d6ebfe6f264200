"""Tests of expected shortfall: Acerbi and Szekely (2014), and the excess residuals of McNeil and Frey (2000).

Both statistics of Acerbi and Szekely are 0 in expectation under a right model and negative where risk was
understated. Their law depends on the whole predictive tail, of which value-at-risk and expected shortfall are two
numbers. The p-value is simulated with a generalised Pareto tail that has just these two (mean excess `ES - VaR`,
shape `xi`) on independent days; it is an approximation to that extent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from r1core import api
from r1core_var.checks import Array, level_of, series
from r1core_var.simulation import generator
from r1core_var.values import Verdict

SIMULATIONS, TAIL_SHAPE = 10_000, 0.15  # the shape of daily equity losses lies near it
_CHUNK = 500  # simulated histories at a time, so that memory stays small


def _aligned(losses: npt.ArrayLike, var: npt.ArrayLike, es: npt.ArrayLike) -> tuple[Array, Array, Array]:
    happened, quantile, shortfall = (
        series(one, name=name) for one, name in ((losses, "losses"), (var, "value-at-risk"), (es, "expected shortfall"))
    )
    if not len(happened) == len(quantile) == len(shortfall):
        raise api.UserError(
            f"found {len(happened)} losses, {len(quantile)} and {len(shortfall)} forecasts",
            fix="give them for the same days",
        )
    wrong = (shortfall < quantile) | (shortfall <= 0)
    if wrong.any():
        raise api.UserError(
            f"expected shortfall on day {int(np.argmax(wrong))} is below the value-at-risk or not positive",
            fix="losses are positive: check the sign of the forecasts",
        )
    return happened, quantile, shortfall


def z1_statistic(losses: Array, var: Array, es: Array) -> float:
    """`1 - mean(L / ES)` over exceedances (eq. 6, signs for positive losses); NaN without one."""
    beyond = losses > var
    return float(1 - (losses[beyond] / es[beyond]).mean()) if beyond.any() else float("nan")


def z2_statistic(losses: Array, var: Array, es: Array, level: float) -> float:
    """`1 - sum(L / ES over exceedances) / (T (1 - level))` (eq. 10)."""
    beyond = losses > var
    return float(1 - (losses[beyond] / es[beyond]).sum() / (len(losses) * float(1 - level_of(level))))


def acerbi_szekely(
    losses: npt.ArrayLike,
    value_at_risk: npt.ArrayLike,
    expected_shortfall: npt.ArrayLike,
    level: float,
    *,
    simulations: int = SIMULATIONS,
    xi: float = TAIL_SHAPE,
    seed: int = 0,
) -> tuple[Verdict, Verdict]:
    """Return Z1 (size of losses beyond) and Z2 (size and number at once), each with a simulated one-sided p-value.

    The p-value is `(1 + histories with a statistic as low) / (1 + histories)`; for Z1 over histories that have an
    exceedance.

    Raises
    ------
    api.UserError : for series that do not fit, an expected shortfall below its value-at-risk, or `xi` outside of [0,
    1).
    """
    happened, var, es = _aligned(losses, value_at_risk, expected_shortfall)
    if not 0 <= xi < 1:
        raise api.UserError(f"found xi = {xi:g}, expected one in [0, 1)", fix="write 0 for an exponential tail")
    p = float(1 - level_of(level))
    observed = (z1_statistic(happened, var, es), z2_statistic(happened, var, es, level))
    base, excess = var / es, (es - var) / es
    low, valid = np.zeros(2), np.zeros(2)
    for chunk in range(-(-simulations // _CHUNK)):
        rng = generator(seed, chunk)
        size = min(_CHUNK, simulations - chunk * _CHUNK)
        history, day = np.nonzero(rng.random((size, len(var))) < p)
        drawn = rng.exponential(size=len(day))
        if xi:
            drawn = np.expm1(xi * drawn) / xi * (1 - xi)
        ratio = base[day] + excess[day] * drawn
        sums, counts = np.bincount(history, ratio, size), np.bincount(history, minlength=size)
        some = counts > 0
        first = 1 - sums[some] / counts[some]
        second = 1 - sums / (len(var) * p)
        low += [(first <= observed[0]).sum(), (second <= observed[1]).sum()]
        valid += [some.sum(), size]
    chances = (1 + low) / (1 + valid)
    one = Verdict("Acerbi-Szekely Z1", observed[0], float(chances[0]))
    if np.isnan(observed[0]):
        one = Verdict("Acerbi-Szekely Z1", np.nan, np.nan, note="no exceedance")
    return one, Verdict("Acerbi-Szekely Z2", observed[1], float(chances[1]))


def excess_residuals(losses: npt.ArrayLike, value_at_risk: npt.ArrayLike, expected_shortfall: npt.ArrayLike) -> Verdict:
    """Test whether losses beyond the value-at-risk are larger than the expected shortfall in the mean (McNeil and
    Frey 2000, 2.3).

    A one-sided t test of `(L - ES) / ES` over exceedances; positive where the shortfall was understated.
    """
    happened, var, es = _aligned(losses, value_at_risk, expected_shortfall)
    beyond = happened > var
    residuals = (happened[beyond] - es[beyond]) / es[beyond]
    if len(residuals) < 2 or residuals.std() == 0:
        return Verdict("excess residuals", np.nan, np.nan, note="fewer than two different exceedances")
    found = stats.ttest_1samp(residuals, 0.0, alternative="greater")
    return Verdict("excess residuals", float(found.statistic), float(found.pvalue), len(residuals) - 1)
