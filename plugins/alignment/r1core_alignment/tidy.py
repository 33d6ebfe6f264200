"""Makes `Facts` of a tidy frame: checks every row, sets aside what cannot be placed, with the reason, and sorts.

Not covered: mending. A row that is wrong stops with its place; one that is only of no use is set aside and told.
"""

# N = rows

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_alignment.days import BITS, MISSING, OUTSIDE, Days, column_of_days
from r1core_alignment.exact import TOO_LONG, column_of_amounts
from r1core_alignment.facts import COLUMNS, Codes, Facts, Names
from r1core_alignment.periods import kinds_of

_TEXTS = ("entity", "concept", "unit", "accession", "form")
_RENAMED = {"val": "value", "accn": "accession"}
"""Names of the SEC's for columns of ours."""
_REASONS = (
    "",
    "its period ends behind its filing date",
    "a date outside of 1900 to 2199",
    "its filing states several values for one period",
    "its value has more digits than are kept exactly",
)


def from_frame(frame: pd.DataFrame, *, where: Callable[[int], str] | None = None) -> Facts:
    """Facts of a tidy frame with the columns `COLUMNS`; `start` is empty for an instant, and may be left out.

    `val` and `accn` are understood as value and accession; other columns, `fy` and `fp` among them, are not read.

    Parameters
    ----------
    where : names the place of a row, by its position from 0, in messages.

    Raises
    ------
    UserError : for a column that is missing, an empty cell (without a filing date a fact cannot be placed in time), a
        date with a time of day or a zone, a period that ends before it starts, and what is no finite number.
    """
    place = where or (lambda position: f"row {position}")
    frame = frame.rename(columns={old: new for old, new in _RENAMED.items() if new not in frame})
    absent = [name for name in COLUMNS if name != "start" and name not in frame]
    if absent:
        raise UserError(
            f"the facts have no column {', '.join(map(repr, absent))}; they have {', '.join(map(repr, frame.columns))}",
            fix=f"rename or add it; the columns are {', '.join(COLUMNS)}",
        )
    if frame.empty:
        raise UserError("there are no facts: the table has no rows", fix="give at least one row")
    texts = {name: _texts(frame[name], name, place) for name in _TEXTS}
    start, end, filed = _periods(frame, place)
    instant = start == MISSING
    mantissa, scale = column_of_amounts(frame["value"], place)
    code, series = _series([texts[name] for name in ("entity", "concept", "unit")])
    columns = {
        "code": code,
        "kind": kinds_of(start, end, instant),
        "start": np.where(instant, 0, start),
        "end": end,
        "filed": filed,
        "accession": texts["accession"][0],
        "form": texts["form"][0],
        "mantissa": mantissa,
        "scale": scale,
    }
    order, reasons, same = _placed(columns)
    kept = order[(reasons == 0) & ~same]
    told = frame.iloc[order[reasons > 0]].assign(reason=np.array(_REASONS, dtype=object)[reasons[reasons > 0]])
    return Facts(
        series=series,
        accessions=texts["accession"][1],
        forms=texts["form"][1],
        left_out=told.reset_index(drop=True),
        **{name: one[kept] for name, one in columns.items()},
    )


def concat(parts: Sequence[Facts]) -> Facts:
    """The facts of several sources in one.

    Raises
    ------
    UserError : where there is none.
    """
    if not parts:
        raise UserError("there are no facts: no source was given", fix="give at least one")
    if len(parts) == 1:
        return parts[0]
    made = from_frame(pd.concat([one.frame() for one in parts], ignore_index=True))
    left = pd.concat([one.left_out for one in (*parts, made)], ignore_index=True)
    return replace(made, left_out=left)


def _texts(column: pd.Series, name: str, place: Callable[[int], str]) -> tuple[Codes, Names]:
    """Codes of a column of texts, and the texts in alphabetical order."""
    codes, found = pd.factorize(column)
    empty = codes < 0
    if empty.any():
        at = int(np.argmax(empty))
        raise UserError(f"{place(at)}, column {name!r}: it is empty", fix="fill it, or leave the row out")
    texts = np.array([str(one).strip() for one in found], dtype=object)
    for number, text in enumerate(texts):
        if not text:
            at = int(np.argmax(codes == number))
            raise UserError(f"{place(at)}, column {name!r}: it is empty", fix="fill it, or leave the row out")
    names, into = np.unique(texts.astype(str), return_inverse=True)
    return into.astype(np.int64)[codes], names.astype(object)


def _periods(frame: pd.DataFrame, place: Callable[[int], str]) -> tuple[Days, Days, Days]:
    """Start (MISSING for an instant), end and filing date of each row."""
    end, filed = (column_of_days(frame[name], name, place) for name in ("end", "filed"))
    start = column_of_days(frame["start"], "start", place) if "start" in frame else np.full(len(frame), MISSING)
    whys = {"end": "a period without an end is no period", "filed": "without a filing date a fact has no place in time"}
    for name, days in (("end", end), ("filed", filed)):
        if (days == MISSING).any():
            at = int(np.argmax(days == MISSING))
            raise UserError(
                f"{place(at)}, column {name!r}: it is empty; {whys[name]}", fix="fill it, or leave the row out"
            )
    backwards = (start > end) & (end >= 0)
    if backwards.any():
        at = int(np.argmax(backwards))
        raise UserError(f"{place(at)}: the period starts behind its end", fix="exchange 'start' and 'end'")
    return start, end, filed


def _placed(columns: dict[str, NDArray[np.int64]]) -> tuple[Codes, NDArray[np.int8], NDArray[np.bool_]]:
    """The order of the rows, and in it: the place in `_REASONS` of each, and which repeat the row before, (N,) each."""
    start, end, filed = (columns[name] for name in ("start", "end", "filed"))
    reasons = np.zeros(len(end), np.int8)
    reasons[end > filed] = 1
    reasons[columns["scale"] == TOO_LONG] = 4
    reasons[(end == OUTSIDE) | (filed == OUTSIDE) | (start == OUTSIDE)] = 2
    key = ((columns["code"] << 3 | columns["kind"]) << BITS | np.maximum(end, 0)) << BITS | np.maximum(start, 0)
    filing = np.maximum(filed, 0) << (63 - BITS) | columns["accession"]  # one key less to sort by
    order = np.lexsort((filing, key))
    again = _repeated(key[order], filing[order])
    same = again & _repeated(columns["mantissa"][order], columns["scale"][order])
    reasons = reasons[order]
    reasons[_runs_with(again & ~same & (reasons == 0), again)] = 3
    return order, reasons, same


def _series(texts: Sequence[tuple[Codes, Names]]) -> tuple[Codes, pd.DataFrame]:
    """One code for the combinations of three columns that occur, and those combinations."""
    (entity, entities), (concept, concepts), (unit, units) = texts
    mixed = (entity * len(concepts) + concept) * len(units) + unit
    code, found = pd.factorize(mixed, sort=True)
    rows = {
        "entity": entities[found // (len(concepts) * len(units))],
        "concept": concepts[found // len(units) % len(concepts)],
        "unit": units[found % len(units)],
    }
    return code.astype(np.int64), pd.DataFrame(rows, dtype=object)


def _repeated(*columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows equal the row before them in all of these columns."""
    made = np.ones(len(columns[0]), bool)
    for one in columns:
        made[1:] &= one[1:] == one[:-1]
    made[:1] = False
    return made


def _runs_with(marked: NDArray[np.bool_], again: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """All rows of the runs (a first row, then rows that are `again`) that hold a marked one."""
    run = np.cumsum(~again) - 1
    return np.bincount(run, weights=marked).astype(bool)[run]
