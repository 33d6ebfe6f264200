"""Reading a series of returns, or of prices, from a CSV file, with file and line for whatever is wrong in it.

Nothing is guessed: prices are prices because `kind` says so, percent is percent because `percent` says so, and a file
that looks like the other is refused. No pandas. Not for intraday data: one row is one trading day.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from r1core import api
from r1core_var.checks import Array, NanPolicy

Kind = Literal["returns", "prices"]
_DATE_NAMES = ("date", "day", "time", "timestamp", "datetime", "")
_MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "#n/a")
# a standard deviation of daily returns above which fractions are taken for percent: 20 % a day
_TOO_WILD = 0.2
# days between two rows, in the middle one of all gaps, beyond which they are taken for weeks or months: a week with
# holidays still has two trading days
_TOO_FAR = 4
_LOSS_NAMES = ("loss", "losses")
_DATE_LIKE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


@dataclass(frozen=True, slots=True)
class ReturnSeries:
    """Daily simple returns as fractions, with the day of each where the file names it.

    `dropped` counts rows that were left out because `nan_policy` said so; `sha256` is of the file's bytes.
    """

    name: str
    source: str
    sha256: str
    returns: Array
    dates: tuple[datetime.date, ...] | None
    dropped: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Sequence[str]


def read_returns(
    path: Path,
    *,
    column: str | None = None,
    kind: Kind = "returns",
    percent: bool = False,
    nan_policy: NanPolicy = "refuse",
    date_format: str = "%Y-%m-%d",
) -> ReturnSeries:
    """Read one column of a CSV file (or `.csv.gz`) with a header line.

    Parameters
    ----------
    column : its name; None where there is one column of numbers only. kind : what the column holds. percent : returns
        of 1.5 mean 1.5 %.
    nan_policy : `refuse` an empty cell with its line, or `drop` the row (for prices the next return then spans both
        days).
    date_format : of the column `date`, as `strptime` has it.

    Raises
    ------
    api.UserError : for a file, column or cell that cannot be read, dates out of order or not daily, and data that look
    like another kind.
    """
    _one_kind(kind, percent)
    header, rows, digest = _rows(path)
    names = [name.strip() for name in header]
    at = _column(path, names, rows, column)
    numbers, kept = [], []
    for row in rows:
        cell = row.cells[at].strip() if at < len(row.cells) else ""
        if cell.lower() in _MISSING:
            if nan_policy == "refuse":
                raise api.UserError(
                    f"{path}:{row.line}: column {names[at]!r} is empty ({cell!r})",
                    fix="fill it in, or leave such rows out with --nan drop",
                )
            continue
        numbers.append(_number(path, row.line, names[at], cell))
        kept.append(row)
    if len(kept) < 2:
        raise api.UserError(
            f"{path}: found {len(kept)} rows with a number in {names[at]!r}", fix="give a longer series"
        )
    dates = _dates(path, names, kept, date_format)
    returns = _returns(path, np.array(numbers), kept, names[at], kind, percent)
    if kind == "prices" and dates is not None:
        dates = dates[1:]
    return ReturnSeries(names[at], str(path), digest, returns, dates, len(rows) - len(kept), kind)


def read_table(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    kind: Kind = "returns",
    nan_policy: NanPolicy = "refuse",
    percent: bool = False,
) -> tuple[tuple[str, ...], Array, int]:
    """Read the returns of several columns: their names, `(T, A)` returns and how many rows were left out.

    Parameters
    ----------
    columns : those that are wanted, in their order; None for every column of numbers. Others are not looked at.
    nan_policy : `refuse` an empty cell, or `drop` a day that lacks any.

    Raises
    ------
    api.UserError : as `read_returns` does; dates are not read.
    """
    _one_kind(kind, percent)
    header, rows, _ = _rows(path)
    names = [name.strip() for name in header]
    known = _numeric(names, rows)
    if unknown := sorted(set(columns or ()) - set(names)):
        raise api.UserError(
            f"{path}: no column {', '.join(unknown)}", fix=f"columns are {', '.join(names[at] for at in known)}"
        )
    wanted = known if columns is None else [names.index(name) for name in columns]
    if not wanted:
        raise api.UserError(
            f"{path}: no column of numbers", fix="give a header line and one column of returns an asset"
        )
    table, kept = [], []
    for row in rows:
        cells = [row.cells[at].strip() if at < len(row.cells) else "" for at in wanted]
        missing = [names[at] for at, cell in zip(wanted, cells, strict=True) if cell.lower() in _MISSING]
        if missing and nan_policy == "refuse":
            raise api.UserError(
                f"{path}:{row.line}: column {missing[0]!r} is empty", fix="fill it in, or say --nan drop"
            )
        if not missing:
            table.append([_number(path, row.line, names[at], cell) for at, cell in zip(wanted, cells, strict=True)])
            kept.append(row)
    if len(kept) < 2:
        raise api.UserError(f"{path}: found {len(kept)} rows with a number in each column", fix="give a longer history")
    values = np.array(table)
    returns = [_returns(path, values[:, i], kept, names[at], kind, percent) for i, at in enumerate(wanted)]
    return tuple(names[at] for at in wanted), np.column_stack(returns), len(rows) - len(kept)


def _one_kind(kind: Kind, percent: bool) -> None:
    if kind == "prices" and percent:
        raise api.UserError("--prices and --percent: prices have no percent", fix="say one of the two")


def _returns(path: Path, values: Array, rows: Sequence[_Row], column: str, kind: Kind, percent: bool) -> Array:
    """Daily simple returns as fractions from one column's numbers; from T prices T - 1."""
    if kind == "prices":
        return _from_prices(path, values, rows, column)
    if column.lower() in _LOSS_NAMES:
        raise api.UserError(
            f"{path}: column {column!r} is called a loss; returns are read, in which a loss is negative",
            fix="change its sign if losses are positive in it, and call it return",
        )
    return _as_fractions(path, values, rows, column, percent)


def _rows(path: Path) -> tuple[list[str], list[_Row], str]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:  # the first three: a .gz that is cut or broken
        raise api.UserError(f"{path}: cannot be read as UTF-8 text ({error})", fix="give a CSV file") from error
    first = text.partition("\n")[0]
    if "," not in first and (other := next((mark for mark in ";\t|" if mark in first), None)):
        raise api.UserError(f"{path}:1: columns are parted by {other!r}", fix="save it with commas and decimal points")
    reader = csv.reader(io.StringIO(text))
    every = [_Row(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    if len(every) < 2:
        raise api.UserError(f"{path}: found {len(every)} lines, expected a header and rows", fix="give a CSV file")
    header = list(every[0].cells)
    if all(_is_number(cell) or _DATE_LIKE.match(cell.strip()) for cell in header):
        raise api.UserError(
            f"{path}:1: found numbers {header} where the header should be", fix="add a line date,return"
        )
    twice = [name for name, count in Counter(cell.strip() for cell in header).items() if name and count > 1]
    if twice:
        raise api.UserError(f"{path}:1: {twice[0]!r} is the name of several columns", fix="name each column once")
    for row in every[1:]:
        if any(cell.strip() for cell in row.cells[len(header) :]):
            raise api.UserError(
                f"{path}:{row.line}: found {len(row.cells)} cells under a header of {len(header)}",
                fix="write numbers with a decimal point and no separator, and a name over each column",
            )
    return header, every[1:], hashlib.sha256(data).hexdigest()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numeric(names: Sequence[str], rows: Sequence[_Row]) -> list[int]:
    """Columns whose first cell that is not empty is a number, a date column excepted."""
    found = []
    for at, name in enumerate(names):
        cells = (row.cells[at].strip() for row in rows if at < len(row.cells))
        first = next((cell for cell in cells if cell.lower() not in _MISSING), None)
        if name.lower() not in _DATE_NAMES and first is not None and _is_number(first.rstrip("%")):
            found.append(at)
    return found


def _column(path: Path, names: Sequence[str], rows: Sequence[_Row], column: str | None) -> int:
    if column is not None:
        if column not in names:
            raise api.UserError(f"{path}: no column {column!r}", fix=f"use one of {', '.join(filter(None, names))}")
        return list(names).index(column)
    found = _numeric(names, rows)
    if len(found) != 1:
        told = ", ".join(names[at] for at in found) or "none"
        raise api.UserError(f"{path}: columns of numbers: {told}", fix="name the one that is meant with --column")
    return found[0]


def _number(path: Path, line: int, column: str, cell: str) -> float:
    if not _is_number(cell) or not np.isfinite(float(cell)):
        fix = "write numbers with a decimal point and no separator"
        if cell.endswith("%"):
            fix = "leave out the % sign and say --percent"
        raise api.UserError(f"{path}:{line}: column {column!r} holds {cell!r}, expected a number", fix=fix)
    return float(cell)


def _dates(path: Path, names: Sequence[str], rows: Sequence[_Row], form: str) -> tuple[datetime.date, ...] | None:
    lowered = [name.lower() for name in names]
    at = next((lowered.index(name) for name in _DATE_NAMES if name in lowered), None)
    if at is None:
        return None
    dates: list[datetime.date] = []
    for row in rows:
        cell = row.cells[at].strip() if at < len(row.cells) else ""
        cell = cell[:10] if form == "%Y-%m-%d" else cell  # an ISO time of day may follow
        try:
            day = datetime.datetime.strptime(cell, form).date()
        except ValueError as error:
            raise api.UserError(
                f"{path}:{row.line}: column {names[at]!r} holds {cell!r}, expected a date like {form}",
                fix="say how dates are written, for instance --date-format %m/%d/%Y",
            ) from error
        if dates and day <= dates[-1]:
            raise api.UserError(
                f"{path}:{row.line}: {day} stands after {dates[-1]}", fix="sort by date, oldest first, one row a day"
            )
        dates.append(day)
    gaps = sorted((after - before).days for before, after in pairwise(dates))
    if len(gaps) >= 20 and gaps[len(gaps) // 2] > _TOO_FAR:
        raise api.UserError(
            f"{path}: rows lie {gaps[len(gaps) // 2]} days apart, expected one a trading day",
            fix="give daily data: figures are of one day, and horizons count days",
        )
    return tuple(dates)


def _from_prices(path: Path, prices: Array, rows: Sequence[_Row], column: str) -> Array:
    if (prices <= 0).any():
        at = int(np.argmax(prices <= 0))
        raise api.UserError(
            f"{path}:{rows[at].line}: column {column!r} holds the price {prices[at]:g}, expected one above 0",
            fix="returns are read without --prices",
        )
    returns = np.diff(prices) / prices[:-1]
    wild = np.abs(returns) > 0.75
    if wild.any():
        at = int(np.argmax(wild))
        raise api.UserError(
            f"{path}:{rows[at + 1].line}: the price moves by {returns[at]:+.0%} in a day",
            fix="adjust prices for splits, or mend the row; for a true move of this size, give returns",
        )
    return np.asarray(returns)


def _as_fractions(path: Path, values: Array, rows: Sequence[_Row], column: str, percent: bool) -> Array:
    if len(values) >= 20 and (values > 0).all():
        raise api.UserError(
            f"{path}: no value of column {column!r} is negative, which no daily returns are",
            fix="for prices, say --prices",
        )
    values = values / 100 if percent else values
    if len(values) >= 2 and values.std() > _TOO_WILD:
        raise api.UserError(
            f"{path}: column {column!r} has a standard deviation of {values.std():.0%} a day",
            fix="for returns in percent, say --percent; for prices, --prices",
        )
    if (values <= -1).any():
        at = int(np.argmax(values <= -1))
        raise api.UserError(
            f"{path}:{rows[at].line}: column {column!r} holds {values[at]:g}, a loss of everything or more",
            fix="give simple returns as fractions, or in percent with --percent",
        )
    return values
