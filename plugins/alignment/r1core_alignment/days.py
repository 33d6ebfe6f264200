"""Days as small integers: 1900-01-01 is 0. Strict: a time of day or a time zone is refused, never cut off.

Not covered: calendars of business days, and years outside of 1900 to 2199 (`OUTSIDE` marks them).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r1core.api import UserError

Days = NDArray[np.int64]
BITS = 17
"""Every day fits into so many bits, so that keys of several columns fit into one int64."""
MISSING, OUTSIDE = -1, -2
_ZERO = np.datetime64("1900-01-01", "D")
_END = int((np.datetime64("2200-01-01", "D") - _ZERO).astype(np.int64))
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
NO_TIME = "write days: frame[column].dt.tz_localize(None).dt.normalize(), once the zone is the one of the filing dates"


def day_of(value: object, what: str) -> int:
    """One day: an ISO 8601 text, a `date`, or a timestamp at midnight without a zone.

    Raises
    ------
    UserError : for anything else, and for a year outside of 1900 to 2199.
    """
    try:
        day = _parsed(value)
    except ValueError as error:
        raise UserError(f"{what}: {error}", fix="write YYYY-MM-DD") from None
    if day < 0:
        raise UserError(f"{what}: found {value!r}, expected a day from 1900 to 2199", fix="write YYYY-MM-DD")
    return day


def iso(day: int) -> str:
    """YYYY-MM-DD."""
    return str(_ZERO + np.timedelta64(int(day), "D"))


def to_datetimes(days: Days, missing: NDArray[np.bool_] | None = None) -> NDArray[np.datetime64]:
    """Days as `datetime64[ns]`; NaT where `missing`."""
    made = (_ZERO + days.astype("timedelta64[D]")).astype("datetime64[ns]")
    if missing is not None:
        made[missing] = np.datetime64("NaT")
    return made


def column_of_days(column: pd.Series, name: str, where: Callable[[int], str]) -> Days:
    """The days of a column, (N,); MISSING for an empty cell, OUTSIDE for a year that is not from 1900 to 2199.

    Raises
    ------
    UserError : for a time zone, a time of day, or what is no day, naming the place by `where(position)`.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        raise UserError(f"column {name!r} has a time zone ({column.dtype.tz}), expected days", fix=NO_TIME)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "M":
        return _of_datetimes(column.to_numpy(), name, where)
    codes, uniques = pd.factorize(column.to_numpy(dtype=object), use_na_sentinel=True)
    parsed = np.full(len(uniques) + 1, MISSING, np.int64)  # the last one serves the code -1 of an empty cell
    for number, value in enumerate(uniques):
        try:
            parsed[number] = _parsed(value)
        except ValueError as error:
            at = int(np.argmax(codes == number))
            raise UserError(f"{where(at)}, column {name!r}: {error}", fix="write YYYY-MM-DD") from None
    return parsed[codes]


def _of_datetimes(values: NDArray[np.datetime64], name: str, where: Callable[[int], str]) -> Days:
    missing = np.isnat(values)
    whole = values.astype("datetime64[D]")
    timed = (whole != values) & ~missing
    if timed.any():
        at = int(np.argmax(timed))
        raise UserError(f"{where(at)}, column {name!r}: found {values[at]}, a time of day; expected a day", fix=NO_TIME)
    days = (whole - _ZERO).astype(np.int64)
    days[(days <= 0) | (days >= _END)] = OUTSIDE  # day 0 is kept for the start that an instant has not
    days[missing] = MISSING
    return days


def _parsed(value: object) -> int:
    """A day, or OUTSIDE; ValueError says what was found."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return MISSING
        if not _ISO.fullmatch(text):
            raise ValueError(f"found {value!r}, expected a day")
        try:
            found = datetime.date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"found {value!r}, which is no day of the calendar") from None
    elif isinstance(value, datetime.datetime | np.datetime64):
        stamp = pd.Timestamp(value)
        if stamp.tzinfo is not None or stamp != stamp.normalize():
            raise ValueError(f"found {value}, with a time of day or a zone; expected a day")
        found = stamp.date()
    elif isinstance(value, datetime.date):
        found = value
    else:
        raise ValueError(f"found {value!r}, expected a day")
    number = (found - datetime.date(1900, 1, 1)).days
    return number if 0 < number < _END else OUTSIDE
