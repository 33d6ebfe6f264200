"""Scores that a right forecast minimises in expectation: pinball (quantile) and FZ0 (both measures)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var.checks import level_of, series


def pinball(losses: npt.ArrayLike, value_at_risk: npt.ArrayLike, level: float) -> float:
    """Mean quantile loss: `level (L - v)` where the loss is larger, `(1 - level) (v - L)` else; in the unit of the
    losses.

    Raises
    ------
    api.UserError : for series that are not finite or of different lengths.
    """
    happened, forecast = series(losses, name="losses"), series(value_at_risk, name="value-at-risk")
    if len(happened) != len(forecast):
        raise api.UserError(
            f"found {len(happened)} losses and {len(forecast)} forecasts", fix="give them for the same days"
        )
    q, gap = float(level_of(level)), happened - forecast
    return float(np.maximum(q * gap, (q - 1) * gap).mean())


def fz0(losses: npt.ArrayLike, value_at_risk: npt.ArrayLike, expected_shortfall: npt.ArrayLike, level: float) -> float:
    """Mean Fissler-Ziegel score of degree 0 (Patton, Ziegel and Chen 2019, eq. 6), for positive losses and shortfalls.

    Raises
    ------
    api.UserError : for series of different lengths, or an expected shortfall that is not positive.
    """
    happened, v, e = series(losses), series(value_at_risk), series(expected_shortfall)
    if not len(happened) == len(v) == len(e) or (e <= 0).any():
        raise api.UserError(
            "losses and forecasts do not fit, or a shortfall is not positive", fix="losses are positive"
        )
    p = float(1 - level_of(level))
    return float((np.where(happened > v, happened - v, 0.0) / (p * e) + v / e + np.log(e) - 1).mean())
