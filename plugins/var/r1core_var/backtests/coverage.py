"""Kupiec's test of coverage, Christoffersen's tests of independence and of conditional coverage.

Likelihood ratios with `0 log 0 = 0` and p-values of the chi-squared distribution. Asymptotic: with a handful of
exceedances the p-value is rough.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from r1core import api
from r1core_var.checks import level_of
from r1core_var.values import Verdict


def hits(exceedances: npt.ArrayLike, least: int = 2) -> npt.NDArray[np.int64]:
    """Return exceedances `(T,)` as zeros and ones.

    Raises
    ------
    api.UserError : where they hold anything else, or fewer than `least` days.
    """
    array = np.asarray(exceedances)
    if array.ndim != 1 or len(array) < least or not np.isin(array, (0, 1)).all():
        raise api.UserError(
            f"exceedances: found shape {array.shape}, type {array.dtype}; expected 0 or 1 for at least {least} days",
            fix="compare losses with the forecasts: losses > value_at_risk",
        )
    return array.astype(np.int64)


def _loglik(ones: int, zeros: int, share: float) -> float:
    return float(special.xlogy(ones, share) + special.xlogy(zeros, 1 - share))


def kupiec(exceedances: npt.ArrayLike, level: float) -> Verdict:
    """Test whether the share of exceedances is `1 - level` (proportion of failures; Kupiec 1995, eq. 3), 1 degree."""
    found = hits(exceedances)
    p, ones = float(1 - level_of(level)), int(found.sum())
    zeros = len(found) - ones
    ratio = max(-2 * (_loglik(ones, zeros, p) - _loglik(ones, zeros, ones / len(found))), 0.0)
    return Verdict("Kupiec coverage", ratio, float(stats.chi2.sf(ratio, 1)), 1)


def christoffersen_independence(exceedances: npt.ArrayLike) -> Verdict:
    """Test whether an exceedance changes the chance of one on the next day (Christoffersen 1998, 3.2), 1 degree."""
    found = hits(exceedances)
    before, after = found[:-1], found[1:]
    n = np.array([[int(((before == i) & (after == j)).sum()) for j in (0, 1)] for i in (0, 1)])
    if not found.any():
        return Verdict("Christoffersen independence", np.nan, np.nan, 1, "no exceedance")
    if n[1].sum() == 0 or n[0].sum() == 0:
        return Verdict("Christoffersen independence", np.nan, np.nan, 1, "no transition to test")
    pooled = n[:, 1].sum() / n.sum()
    each = n[:, 1] / n.sum(axis=1)
    free = sum(_loglik(int(n[i, 1]), int(n[i, 0]), float(each[i])) for i in (0, 1))
    ratio = max(-2 * (_loglik(int(n[:, 1].sum()), int(n[:, 0].sum()), float(pooled)) - free), 0.0)
    return Verdict("Christoffersen independence", ratio, float(stats.chi2.sf(ratio, 1)), 1)


def christoffersen_conditional(exceedances: npt.ArrayLike, level: float) -> Verdict:
    """Test coverage and independence at once, 2 degrees.

    The sum of both ratios, Kupiec's over all days, as it is commonly reported (Christoffersen 1998 conditions on the
    first day).
    """
    alone, together = christoffersen_independence(exceedances), kupiec(exceedances, level)
    ratio = alone.statistic + together.statistic
    return Verdict("Christoffersen conditional", ratio, float(stats.chi2.sf(ratio, 2)), 2, alone.note)
