"""The dynamic quantile test of Engle and Manganelli (2004), section 6.2, out of sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from r1core import api
from r1core_var.backtests.coverage import hits
from r1core_var.checks import level_of, series
from r1core_var.values import Verdict

LAGS = 4


def dynamic_quantile(
    exceedances: npt.ArrayLike, value_at_risk: npt.ArrayLike, level: float, *, lags: int = LAGS
) -> Verdict:
    """Test whether today's exceedance can be told from the last ones and from today's forecast.

    Regressors are a constant, `lags` lagged hits (hit = exceedance minus `1 - level`) and the day's value-at-risk,
    which is known the evening before: `lags + 2` degrees. The statistic is `H'X (X'X)^-1 X'H / (p (1 - p))`, over the
    days that have every lag.

    Raises
    ------
    api.UserError : for series of different lengths, or no more days than regressors.
    """
    found, forecast = hits(exceedances), series(value_at_risk, name="value-at-risk")
    if len(found) != len(forecast):
        raise api.UserError(
            f"found {len(found)} exceedances and {len(forecast)} forecasts", fix="give both for the same days"
        )
    if lags < 0 or len(found) <= 2 * lags + 2:
        raise api.UserError(f"{len(found)} days are too few for {lags} lags", fix="give more days or fewer lags")
    p, name = float(1 - level_of(level)), "dynamic quantile"
    hit = found - p
    columns = [np.ones(len(hit) - lags), *(hit[lags - lag : len(hit) - lag] for lag in range(1, lags + 1))]
    x, y = np.column_stack([*columns, forecast[lags:]]), hit[lags:]
    scaled = x / np.maximum(np.abs(x).max(axis=0), 1e-300)
    coefficients, _, rank, _ = np.linalg.lstsq(scaled, y, rcond=1e-10)
    if rank < x.shape[1]:
        return Verdict(
            name, np.nan, np.nan, x.shape[1], "regressors are collinear (no exceedance, or a constant forecast)"
        )
    statistic = float(y @ (scaled @ coefficients)) / (p * (1 - p))
    return Verdict(name, statistic, float(stats.chi2.sf(statistic, x.shape[1])), x.shape[1])
