"""Reported facts, checked once and held in columns: what they state, of which period, and when it was filed.

Not covered: dimensions (segments, scenarios), and splits: amounts per share are what the filing stated.
"""

# N = facts, S = series (entity, concept, unit)

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_alignment.days import BITS, MISSING, OUTSIDE, Days, column_of_days, to_datetimes
from r1core_alignment.exact import as_numbers, column_of_amounts
from r1core_alignment.periods import INSTANT, kinds_of

COLUMNS = ("entity", "concept", "unit", "value", "start", "end", "filed", "accession", "form")
_TEXTS = ("entity", "concept", "unit", "accession", "form")
_RENAMED = {"val": "value", "accn": "accession"}
"""Names of the SEC's for columns of ours."""
Names = NDArray[np.object_]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts in the order of series, length of period, end, start, filing date and accession.

    Parameters
    ----------
    series : (S,) rows of entity, concept, unit. accessions, forms : texts, in alphabetical order.
    code, kind, start, end, filed, accession, form : (N,) series, kind of period, days, and places in those texts; `start`
        is 0 for an instant.
    mantissa, scale : (N,) the value is `mantissa / 10**scale`, exactly.
    left_out : rows that are not used, with the reason.
    """

    series: pd.DataFrame
    accessions: Names
    forms: Names
    code: Codes
    kind: Codes
    start: Days
    end: Days
    filed: Days
    accession: Codes
    form: Codes
    mantissa: NDArray[np.int64]
    scale: NDArray[np.int8]
    left_out: pd.DataFrame

    def __len__(self) -> int:
        return len(self.code)

    def frame(self) -> pd.DataFrame:
        """One row a fact, columns `COLUMNS`; `start` is NaT for an instant, `value` an int where every one is."""
        named = {name: self.series[name].to_numpy()[self.code] for name in ("entity", "concept", "unit")}
        whole = not self.scale.any()
        return pd.DataFrame(
            {
                **named,
                "value": self.mantissa if whole else as_numbers(self.mantissa, self.scale),
                "start": to_datetimes(self.start, self.kind == INSTANT),
                "end": to_datetimes(self.end),
                "filed": to_datetimes(self.filed),
                "accession": self.accessions[self.accession],
                "form": self.forms[self.form],
            }
        )

    def concepts(self) -> pd.DataFrame:
        """One row a series: how many facts, and the first and last period end and filing date."""
        frame = self.frame()
        grouped = frame.assign(instant=frame["start"].isna()).groupby(["entity", "concept", "unit"], sort=True)
        return grouped.agg(
            facts=("filed", "size"),
            instants=("instant", "sum"),
            first_end=("end", "min"),
            last_end=("end", "max"),
            last_filed=("filed", "max"),
        ).reset_index()

    def select(
        self, concepts: str | Iterable[str] | None = None, entities: str | int | Iterable[str | int] | None = None
    ) -> Facts:
        """The facts of these concepts and entities; None means all of them.

        A concept is named in full (`us-gaap:Assets`) or without its taxonomy (`Assets`, in every taxonomy that has
        it); an entity as it stands, or by its CIK.

        Raises
        ------
        UserError : for a name that no fact has.
        """
        kept = np.ones(len(self.series), bool)
        if concepts is not None:
            full = self.series["concept"].to_numpy()
            short = np.array([name.rpartition(":")[2] for name in full], dtype=object)
            kept &= _named(_listed(concepts), (full, short), "concept")
        if entities is not None:
            held = self.series["entity"].to_numpy()
            known = set(held)
            kept &= _named([entity_name(one, known) for one in _listed(entities)], (held,), "entity")
        return self._of(kept)

    def _of(self, kept: NDArray[np.bool_]) -> Facts:
        if kept.all():
            return self
        rows = kept[self.code]
        columns = ("kind", "start", "end", "filed", "accession", "form", "mantissa", "scale")
        return replace(
            self,
            series=self.series[kept].reset_index(drop=True),
            code=(np.cumsum(kept) - 1)[self.code[rows]],
            **{name: getattr(self, name)[rows] for name in columns},
        )


def entity_name(entity: str | int, known: Iterable[str]) -> str:
    """The name under which an entity is known: as it stands, or `CIK0001640147` for a CIK in digits."""
    text = str(entity).strip()
    return text if text in known or not text.isdecimal() else cik_name(text)


def cik_name(cik: str | int) -> str:
    """A CIK as the SEC names its files."""
    return f"CIK{int(cik):010d}"


def from_frame(frame: pd.DataFrame, *, where: Callable[[int], str] | None = None) -> Facts:
    """Facts of a tidy frame: entity, concept, unit, value, end, filed, accession, form, and start (empty for an instant).

    `val` and `accn` are understood as value and accession; other columns, `fy` and `fp` among them, are not read.

    Parameters
    ----------
    where : names the place of a row, by its position from 0, in messages.

    Raises
    ------
    UserError : for a column that is missing, an empty cell (a fact without a filing date cannot be placed in time), a date
        with a time of day or a zone, a period that ends before it starts, and what is no finite number.
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
    end, filed = (column_of_days(frame[name], name, place) for name in ("end", "filed"))
    start = column_of_days(frame["start"], "start", place) if "start" in frame else np.full(len(frame), MISSING)
    _dated(end, "end", "a period without an end is no period", place)
    _dated(filed, "filed", "a fact without a filing date cannot be placed in time", place)
    backwards = (start > end) & (end >= 0)
    if backwards.any():
        at = int(np.argmax(backwards))
        raise UserError(f"{place(at)}: the period starts behind its end", fix="exchange 'start' and 'end'")
    mantissa, scale = column_of_amounts(frame["value"], place)
    code, series = _series([texts[name] for name in ("entity", "concept", "unit")])
    instant = start == MISSING
    start = np.where(instant, 0, start)
    kind = kinds_of(start, end, instant)
    (accession, accessions), (form, forms) = texts["accession"], texts["form"]
    reasons = np.zeros(len(frame), np.int8)
    reasons[end > filed] = 1
    reasons[(end == OUTSIDE) | (filed == OUTSIDE) | (start == OUTSIDE)] = 2
    key = ((code << 3 | kind) << BITS | np.maximum(end, 0)) << BITS | np.maximum(start, 0)
    order = np.lexsort((accession, filed, key))
    columns = (code, kind, start, end, filed, accession, form, mantissa, scale)
    code, kind, start, end, filed, accession, form, mantissa, scale = (one[order] for one in columns)
    reasons, key = reasons[order], key[order]
    again = _repeated(key, filed, accession)
    same = again & (mantissa == np.roll(mantissa, 1)) & (scale == np.roll(scale, 1))
    reasons[_runs_with(again & ~same & (reasons == 0), again)] = 3
    kept = (reasons == 0) & ~same
    left = np.flatnonzero(reasons)
    told = frame.iloc[order[left]].assign(reason=np.array(_REASONS, dtype=object)[reasons[left]])
    columns = (code, kind, start, end, filed, accession, form, mantissa, scale)
    return Facts(series, accessions, forms, *(one[kept] for one in columns), told.reset_index(drop=True))


_REASONS = (
    "",
    "its period ends behind its filing date",
    "a date outside of 1900 to 2199",
    "its filing states several values for one period",
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


def _dated(days: Days, name: str, why: str, place: Callable[[int], str]) -> None:
    if (days == MISSING).any():
        at = int(np.argmax(days == MISSING))
        raise UserError(f"{place(at)}, column {name!r}: it is empty; {why}", fix="fill it, or leave the row out")


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


def _listed(given: str | int | Iterable[str | int]) -> list[str]:
    return [str(one).strip() for one in ([given] if isinstance(given, str | int) else given)]


def _named(wanted: Sequence[str], columns: Sequence[Names], what: str) -> NDArray[np.bool_]:
    kept = np.zeros(len(columns[0]), bool)
    for name in wanted:
        found = np.any([column == name for column in columns], axis=0)
        if not found.any():
            every = sorted({str(one) for column in columns for one in column})
            near = difflib.get_close_matches(name, every, 3, 0.5)
            raise UserError(
                f"no fact has the {what} {name!r}",
                fix=f"did you mean {' or '.join(near)}?" if near else "facts.concepts(), or --list, names them all",
            )
        kept |= found
    return kept
