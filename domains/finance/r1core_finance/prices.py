"""Daily closing prices out of installed wheels: `arch` (two indices) and `skfolio` (an index and 20 stocks).

Nothing is downloaded, copied or imported: the files are read where the wheels put them, so `skfolio` may be installed
without its dependencies. Prices stay the strings that the files hold, since questions on them are answered exactly.

Not covered: dividends and splits beyond what a file's own adjustment did; the 20 stocks are those that were large at
the end, so their average says nothing about what a buyer at the start would have chosen.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from r1core import api

INSTALL: Mapping[str, str] = MappingProxyType(
    {"arch": "pip install arch==8.0.0", "skfolio": "pip install --no-deps skfolio==1.12.0"}
)


@dataclass(frozen=True, slots=True)
class Series:
    """Closing prices of one name.

    Parameters
    ----------
    dates : trading days, ascending. closes : of each, above zero, spelt as the file does.
    """

    name: str
    dates: tuple[datetime.date, ...]
    closes: tuple[str, ...]

    def returns(self) -> tuple[float, ...]:
        """Simple returns as fractions, one for each day but the first."""
        values = [float(close) for close in self.closes]
        return tuple(after / before - 1.0 for before, after in pairwise(values))


def indices() -> tuple[Series, ...]:
    """S&P 500 and NASDAQ Composite, 1999 to 2018, adjusted closes (wheel `arch`).

    Raises
    ------
    api.UserError : when the wheel is absent, or its file is not as expected.
    """
    return tuple(_american(name, file_of("arch", f"data/{name}/{name}.csv.gz")) for name in ("sp500", "nasdaq"))


def long_index() -> Series:
    """S&P 500, 1990 to 2022 (wheel `skfolio`). Raises as `indices`."""
    (found,) = _iso(file_of("skfolio", "datasets/data/sp500_index.csv.gz"))
    return found


def stocks() -> tuple[Series, ...]:
    """20 large American stocks, 1990 to 2022, adjusted closes (wheel `skfolio`). Raises as `indices`."""
    return _iso(file_of("skfolio", "datasets/data/sp500_dataset.csv.gz"))


def file_of(package: str, inside: str) -> Path:
    """Where an installed wheel has a file, without importing it.

    Raises
    ------
    api.UserError : when the package or the file is absent.
    """
    found = find_spec(package)
    path = None if found is None or found.origin is None else Path(found.origin).parent / inside
    if path is None or not path.is_file():
        raise api.UserError(f"{package}: not installed, or without {inside}", fix=INSTALL[package])
    return path


@cache
def _american(name: str, path: Path) -> Series:
    """`Date` as month/day/year beside `Adj Close`."""
    rows = _rows(path)
    dates = []
    for number, row in enumerate(rows, 2):
        month, day, year = _split(row.get("Date") or "", "/", path, number)
        dates.append(datetime.date(year, month, day))
    return _checked(Series(name, tuple(dates), tuple(row["Adj Close"] for row in rows)), path)


@cache
def _iso(path: Path) -> tuple[Series, ...]:
    """`Date` as year-month-day, and a column for each name."""
    rows = _rows(path)
    dates = tuple(
        datetime.date(*_split(row.get("Date") or "", "-", path, number)) for number, row in enumerate(rows, 2)
    )
    names = [name for name in rows[0] if name != "Date"]
    return tuple(_checked(Series(name, dates, tuple(row[name] for row in rows)), path) for name in names)


def _rows(path: Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise api.UserError(f"{path}: no rows", fix=f"install that wheel again: {' or '.join(INSTALL.values())}")
    return rows


def _split(text: str, mark: str, path: Path, number: int) -> tuple[int, int, int]:
    parts = text.split(mark)
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise api.UserError(f"{path}:{number}: {text!r} is no date", fix="install that wheel again")
    first, second, third = map(int, parts)
    return first, second, third


def _checked(series: Series, path: Path) -> Series:
    """The series, its days ascending and its prices above zero."""
    if any(after <= before for before, after in pairwise(series.dates)):
        raise api.UserError(f"{path}: the days of {series.name} do not ascend", fix="install that wheel again")
    for date, close in zip(series.dates, series.closes, strict=True):
        if not (close.replace(".", "", 1).isdecimal() and float(close) > 0):
            raise api.UserError(
                f"{path}: {series.name} on {date}: {close!r} is no price", fix="install that wheel again"
            )
    return series
