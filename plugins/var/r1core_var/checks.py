"""What every entry point asks of its input: finite returns, a confidence level, a horizon. Fails closed.

The NaN policy of the whole plugin is here: a value that is not finite is refused with its position (`refuse`, the
default), or removed where the caller says so (`drop`). Nothing is filled in. pandas objects are accepted, not imported.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from r1core import api

Array = npt.NDArray[np.float64]
NanPolicy = Literal["refuse", "drop"]


def series(values: npt.ArrayLike, *, nan_policy: NanPolicy = "refuse", least: int = 1, name: str = "returns") -> Array:
    """Return a series as a finite float64 array `(T,)`.

    Parameters
    ----------
    values : `(T,)`, an array, list or pandas Series. least : how many finite values are needed.
    nan_policy : `refuse` NaN and infinity with the position of the first, or `drop` them.

    Raises
    ------
    api.UserError : for another shape, a value that is no number or not finite, or too few of them.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise api.UserError(
            f"{name}: found values that are no numbers ({error})", fix="give one number a day"
        ) from error
    if array.ndim != 1:
        raise api.UserError(
            f"{name}: found shape {array.shape}, expected one dimension", fix="give one series at a time"
        )
    finite = np.isfinite(array)
    if not finite.all():
        if nan_policy == "refuse":
            at = int(np.argmin(finite))
            raise api.UserError(
                f"{name}: {int((~finite).sum())} values are not finite, the first at position {at} ({array[at]})",
                fix='remove or mend them, or say nan_policy="drop"',
            )
        array = array[finite]
    if len(array) < least:
        raise api.UserError(
            f"{name}: found {len(array)} values, expected at least {least}",
            fix="give a longer series or a shorter window",
        )
    return np.ascontiguousarray(array)


def matrix(values: npt.ArrayLike, *, nan_policy: NanPolicy = "refuse", least: int = 2, name: str = "returns") -> Array:
    """Return the returns of several assets as a finite array `(T, A)`; `drop` removes a whole day.

    Raises
    ------
    api.UserError : as `series` does.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise api.UserError(f"{name}: found values that are no numbers ({error})", fix="give numbers only") from error
    if array.ndim != 2:
        raise api.UserError(
            f"{name}: found shape {array.shape}, expected (days, assets)", fix="give a table of returns"
        )
    finite = np.isfinite(array)
    if not finite.all():
        if nan_policy == "refuse":
            day, asset = (int(i[0]) for i in np.nonzero(~finite))
            raise api.UserError(
                f"{name}: {int((~finite).sum())} values are not finite, the first at day {day}, asset {asset}",
                fix='remove or mend them, or say nan_policy="drop"',
            )
        array = array[finite.all(axis=1)]
    if len(array) < least:
        raise api.UserError(f"{name}: found {len(array)} days, expected at least {least}", fix="give a longer history")
    return np.ascontiguousarray(array)


def level_of(level: float) -> Fraction:
    """Return a confidence level such as 0.99 as the exact decimal that was meant.

    Raises
    ------
    api.UserError : for a level outside of (0.5, 1): 0.01 is a tail probability, 99 a percentage.
    """
    if not 0.5 < level < 1.0:
        meant = 1 - level if 0 < level < 0.5 else level / 100 if 50 < level < 100 else 0.99
        raise api.UserError(
            f"found confidence level {level:g}, expected one between 0.5 and 1",
            fix=f"write the confidence, not the tail probability or a percentage: {meant:g}",
        )
    return Fraction(repr(float(level)))


def horizon_of(horizon: int) -> int:
    """Return a horizon in days.

    Raises
    ------
    api.UserError : where it is no whole number of days, at least 1.
    """
    if isinstance(horizon, bool) or int(horizon) != horizon or horizon < 1:
        raise api.UserError(f"found a horizon of {horizon!r}, expected whole days, at least 1", fix="write 1 or 10")
    return int(horizon)
