"""Historical simulation: value-at-risk and expected shortfall of observed returns, for one or more days.

Ten days are either `sqrt` (one-day figures times the square root of the horizon, which assumes independent days) or
`overlapping` (every run of successive days compounded; the runs share days, so far fewer of them are independent than
are counted).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var import quantiles
from r1core_var.checks import Array, NanPolicy, horizon_of, series
from r1core_var.values import Risk

Scaling = Literal["sqrt", "overlapping"]
ReturnKind = Literal["simple", "log"]


def overlapping_returns(returns: Array, horizon: int, kind: ReturnKind = "simple") -> Array:
    """Return the compounded returns of every run of `horizon` successive days, `(T - horizon + 1,)`.

    Simple returns multiply as 1 + r (and must be fractions, not percent); log returns add.
    """
    if kind == "log":
        total = np.concatenate([[0.0], np.cumsum(returns)])
        return np.asarray(total[horizon:] - total[:-horizon])
    if (returns <= -1.0).any():
        raise api.UserError(
            f"simple returns of {returns.min():g} lose everything or more; compounding needs fractions above -1",
            fix="divide percent returns by 100, or compute log returns",
        )
    runs = np.lib.stride_tricks.sliding_window_view(returns, horizon)
    return np.asarray(np.prod(1.0 + runs, axis=1) - 1.0)


def historical(
    returns: npt.ArrayLike,
    level: float,
    *,
    horizon: int = 1,
    quantile: quantiles.QuantileMethod = quantiles.DEFAULT,
    scaling: Scaling = "sqrt",
    kind: ReturnKind = "simple",
    nan_policy: NanPolicy = "refuse",
) -> Risk:
    """Value-at-risk and expected shortfall of the empirical distribution; losses positive.

    Parameters
    ----------
    returns : `(T,)` one-day returns. level : confidence, such as 0.99. horizon : days.
    quantile : convention of the value-at-risk; the expected shortfall is the exact tail mean under each.

    Raises
    ------
    api.UserError : for returns that are not finite (see `nan_policy`) or fewer than one observation beyond the level.
    """
    days = horizon_of(horizon)
    values = series(returns, nan_policy=nan_policy, least=days + 1)
    factor, words = 1.0, "1 day"
    if days > 1 and scaling == "overlapping":
        values, words = overlapping_returns(values, days, kind), f"{days}-day overlapping {kind} returns"
    elif days > 1:
        factor, words = float(np.sqrt(days)), f"1 day times sqrt({days})"
    if quantiles.tail(len(values), level)[2] < 1.0:
        raise api.UserError(
            f"{len(values)} observations hold none beyond the {level:g} quantile",
            fix=f"give at least {int(np.ceil(1 / (1 - level) - 1e-9))} or a lower level",
        )
    losses = -values
    return Risk(
        factor * quantiles.value_at_risk(losses, level, quantile),
        factor * quantiles.expected_shortfall(losses, level),
        level,
        days,
        f"historical, {len(values)} observations, quantile {quantile}, {words}",
    )
