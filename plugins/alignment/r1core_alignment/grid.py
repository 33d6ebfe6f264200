"""The dates of a grid, in calendar days: what a cell holds was filed before its date, whatever the hour.

`day`: every calendar day. `week`: Fridays. `month` and `quarter`: the last calendar day. Any other calendar, such as an
exchange's, is given as its dates. Not covered: time zones and hours.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pandas as pd

from r1core.api import UserError
from r1core_alignment.days import Days, column_of_days, day_of

GRIDS = ("day", "week", "month", "quarter")
Day: TypeAlias = str | datetime.date | np.datetime64 | pd.Timestamp
Grid: TypeAlias = str | Iterable[Day]
_ZERO = np.datetime64("1900-01-01", "D")
_FRIDAY = 4


def grid_days(grid: Grid, start: Day | None, end: Day | None, seen: int, last: int) -> Days:
    """The days of a grid, ascending, (G,).

    Parameters
    ----------
    grid : one of `GRIDS`, or dates in ascending order.
    start, end : first and last day that may be in it, both counted; None = the first date at which something is known,
        and the first at which everything is (of dates that are given: the first and last).
    seen, last : the days from which on the first and the last of the facts are known.

    Raises
    ------
    UserError : for an unknown grid, dates that do not ascend or have a time of day, and a grid without a date.
    """
    least = None if start is None else day_of(start, "the start of the grid")
    most = None if end is None else day_of(end, "the end of the grid")
    if least is not None and most is not None and least > most:
        raise UserError(f"the grid starts on {start} and ends on {end}, before it", fix="exchange start and end")
    if not isinstance(grid, str):
        days = _given(grid)
        kept = (days >= (least if least is not None else days[0])) & (days <= (most if most is not None else days[-1]))
        days = days[kept]
    else:
        if grid not in GRIDS:
            raise UserError(f"unknown grid {grid!r}", fix=f"one of {', '.join(GRIDS)}, or dates")
        first = seen if least is None else least
        days = _regular(grid, first, max(last, first) if most is None else most, open_end=most is None)
    if not days.size:
        raise UserError(f"no date of the grid lies from {start or 'its start'} to {end or 'its end'}", fix="widen them")
    return days


def _given(dates: Iterable[Day]) -> Days:
    values = pd.Series(dates if isinstance(dates, pd.DatetimeIndex) else list(dates))
    days = column_of_days(values, "grid", lambda position: f"date {position} of the grid")
    if not days.size or (days < 0).any() or (np.diff(days) <= 0).any():
        raise UserError("the dates of the grid are none, or do not ascend", fix="give days in order, each once")
    return days


def _regular(grid: str, first: int, last: int, *, open_end: bool) -> Days:
    """Dates from `first` to `last`; with an open end to the first one that is not before `last`."""
    months = np.arange((_ZERO + first).astype("datetime64[M]"), (_ZERO + last).astype("datetime64[M]") + 4)
    ends: Days = np.asarray((months + 1).astype("datetime64[D]").astype(np.int64) - _ZERO.astype(np.int64) - 1)
    if grid == "quarter":
        ends = ends[months.astype(np.int64) % 3 == 2]
    days: Days
    if grid in ("month", "quarter"):
        days = ends
    else:
        days = np.arange(first, last + 8)
        if grid == "week":
            days = days[days % 7 == _FRIDAY]  # 1900-01-01, day 0, was a Monday
    days = days[days >= first]
    stop = np.searchsorted(days, last, side="left") + 1 if open_end else np.searchsorted(days, last, side="right")
    return days[: int(stop)]
