"""Proves that a table holds nothing that was not yet filed: every cell is recomputed from what was, and compared.

An `Aligned` or any tidy table of ours can be audited, one read back from a file too. Not covered: whether the facts
themselves state the right filing dates.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Literal, cast

import pandas as pd

from r1core.api import UserError
from r1core_alignment.additivity import why_not_additive
from r1core_alignment.aligned import LEVELS, LONG, Aligned
from r1core_alignment.facts import Facts
from r1core_alignment.periods import MEASURES, Measure
from r1core_alignment.provenance import parse, plain
from r1core_alignment.recomputing import Cell, Fact, cell_of, filed_before, sources_of
from r1core_alignment.settings import Settings

Kind = Literal["look_ahead", "unknown_source", "differs", "missing", "unexpected", "twice"]
Key = tuple[str, str, str, str]
Row = Mapping[str, str]
_TEXTS = ("start", "end", "rule", "accession", "filed", "form", "first_filed", "sources")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a cell.

    `look_ahead`: it holds what was not yet filed. `unknown_source`: no fact is filed as it says. `differs`: it is
    not what the newest filings known by then give. `missing`, `unexpected`, `twice`: a row that lacks or is too many.
    """

    kind: Kind
    date: str
    column: Key
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.date} {' '.join(self.column)}"
        return f"{self.kind}: {where}: found {self.found or 'nothing'}, expected {self.expected or 'nothing'}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit looked at and found.

    Parameters
    ----------
    cells : cells recomputed, the empty ones included. rows : those of them that hold a value.
    sources : facts that these name. look_ahead : rows that hold what was not yet filed.
    """

    cells: int
    rows: int
    sources: int
    look_ahead: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        looked = f"{self.cells} cells recomputed, {self.rows} with a value, of {self.sources} facts"
        return f"rows with look-ahead: {self.look_ahead}; {looked}; {len(self.findings)} findings"


def audit(
    table: Aligned | pd.DataFrame,
    facts: Facts | None = None,
    *,
    settings: Settings | None = None,
    columns: int | None = None,
    seed: int = 0,
) -> AuditReport:
    """Recompute every cell from the facts filed before its date, and compare value, period and provenance.

    Parameters
    ----------
    table : an `Aligned`, or a tidy table with the columns `LONG`: then the dates and columns that occur in it are
        checked.
    facts : what was filed; None = what was aligned. settings : as the table was made; None = as it says itself.
    columns : so many columns only, drawn by `seed`; None = all.

    Raises
    ------
    UserError : for a table without facts, or that is no such table.
    """
    if isinstance(table, Aligned):
        held, said = table.facts if facts is None else facts, table.settings
        names = list(zip(*(held.series[level] for level in LEVELS[:3]), strict=True))
        every: list[Key] = [(*name, measure) for name in names for measure in table.measures]
        dates = [stamp.date() for stamp in table.dates]
    else:
        if facts is None:
            raise UserError("a table is audited against facts", fix="audit(table, facts)")
        if table.empty:
            raise UserError("the table has no rows, so nothing can be said of it", fix="give one that has some")
        held, said = facts, Settings()
        table = _checked(table)
        every = list(dict.fromkeys(zip(*(table[level] for level in LEVELS), strict=True)))
        dates = sorted({date.fromisoformat(day) for day in table["date"]})
    if columns is not None and columns < len(every):
        every = sorted(random.Random(seed).sample(every, columns))
    if isinstance(table, Aligned):
        places = {tuple(column): number for number, column in enumerate(table.columns)}
        table = _checked(table.long(exact=True, columns=[places[key] for key in every if key in places]))
    return _compared(_by_column(table), every, dates, held, said if settings is None else settings)


def _compared(
    rows: Mapping[Key, Sequence[Row]], every: Sequence[Key], dates: Sequence[date], held: Facts, settings: Settings
) -> AuditReport:
    facts = _by_series(held)
    findings: list[Finding] = []
    count: Counter[str] = Counter()
    for key in every:
        column = _Column(key, facts.get(key[:3], []), settings)
        at: dict[str, list[Row]] = {}
        for row in rows.get(key, ()):
            at.setdefault(row["date"], []).append(row)
        for day in dates:
            count["cells"] += 1
            mine = at.get(day.isoformat(), [])
            if len(mine) > 1:
                findings.append(Finding("twice", day.isoformat(), key, f"{len(mine)} rows", "one row"))
            found_rows: list[Row | None] = [*mine] or [None]
            for one in found_rows:
                found = list(column.findings(day, one, count))
                count["look_ahead"] += any(finding.kind == "look_ahead" for finding in found)
                findings += found
    return AuditReport(count["cells"], count["rows"], count["sources"], count["look_ahead"], tuple(findings))


class _Column:
    """One column, its facts, and what has to stand in it after so many of them are known."""

    def __init__(self, key: Key, facts: Sequence[Fact], settings: Settings) -> None:
        self.key, self.facts, self.settings = key, facts, settings
        self.measure = cast(Measure, key[3])
        self.additive = not why_not_additive(key[1], key[2], settings.additive, settings.non_additive)
        self._made: dict[int, tuple[Cell | None, dict[str, str]]] = {}

    def findings(self, day: date, row: Row | None, count: Counter[str]) -> Iterator[Finding]:
        """What is wrong with the cell of a day."""
        known = filed_before(self.facts, day, self.settings.lag)
        cell, expected = self._expected(known)
        if cell and self.settings.max_age is not None and (day - cell.end).days > self.settings.max_age:
            cell = None
        stamp = day.isoformat()
        if row is None:
            if cell is not None:
                yield Finding("missing", stamp, self.key, "", expected["value"])
            return
        count["rows"] += 1
        yield from self._sources(day, row, known, count)
        if cell is None:
            yield Finding("unexpected", stamp, self.key, row["value"], "")
            return
        if Decimal(row["value"]) != cell.value:
            kind: Kind = "look_ahead" if self._comes_later(Decimal(row["value"]), known) else "differs"
            yield Finding(kind, stamp, self.key, row["value"], expected["value"])
        for name in _TEXTS:
            if row[name] != expected[name]:
                yield Finding("differs", stamp, self.key, f"{name} {row[name]!r}", repr(expected[name]))

    def _expected(self, known: Sequence[Fact]) -> tuple[Cell | None, dict[str, str]]:
        """The cell, and the texts of its row; the facts stand in the order of filing, so their number tells which."""
        if len(known) not in self._made:
            cell = cell_of(known, self.measure, additive=self.additive)
            self._made[len(known)] = cell, {} if cell is None else _told(cell, known)
        return self._made[len(known)]

    def _sources(self, day: date, row: Row, known: Sequence[Fact], count: Counter[str]) -> Iterator[Finding]:
        """Sources that are no facts, or were not yet filed, by the facts' own filing dates."""
        for text in row["sources"].split("; "):
            count["sources"] += 1
            source = parse(text)
            named = [
                fact
                for fact in self.facts
                if source is not None
                and (fact.accession, fact.end.isoformat()) == (source.accession, source.end)
                and (None if fact.start is None else fact.start.isoformat()) == source.start
            ]
            if not any(fact in known for fact in named):
                kind: Kind = "look_ahead" if named else "unknown_source"
                yield Finding(kind, day.isoformat(), self.key, text, "a fact filed before")

    def _comes_later(self, value: Decimal, known: Sequence[Fact]) -> bool:
        """Whether a value is what this column will hold when more is filed."""
        for filed in sorted({fact.filed for fact in self.facts[len(known) :]}):
            later, _ = self._expected([fact for fact in self.facts if fact.filed <= filed])
            if later is not None and later.value == value:
                return True
        return False


def _told(cell: Cell, known: Sequence[Fact]) -> dict[str, str]:
    """The texts that a row has to hold."""
    sources = sources_of(cell, known)
    newest = max(sources, key=lambda one: (one.filed, one.accession))
    return {
        "value": plain(cell.value),
        "start": "" if cell.start is None else cell.start.isoformat(),
        "end": cell.end.isoformat(),
        "rule": cell.rule,
        "accession": newest.accession,
        "filed": newest.filed,
        "form": newest.form,
        "first_filed": max(one.first_filed for one in sources),
        "sources": "; ".join(map(str, sources)),
    }


def _by_series(held: Facts) -> dict[tuple[str, str, str], list[Fact]]:
    """The facts of each entity, concept and unit, in the order of filing."""
    made: dict[tuple[str, str, str], list[Fact]] = {}
    for entity, concept, unit, value, start, end, filed, accession, form in held.frame().itertuples(index=False):
        first = None if pd.isna(start) else start.date()
        number = value if isinstance(value, Decimal) else int(value)
        fact = Fact(number, first, end.date(), filed.date(), accession, form)
        made.setdefault((entity, concept, unit), []).append(fact)
    for facts in made.values():
        facts.sort(key=lambda fact: fact.filed)
    return made


def _by_column(table: pd.DataFrame) -> dict[Key, list[Row]]:
    made: dict[Key, list[Row]] = {}
    for row in table.to_dict("records"):
        made.setdefault(cast(Key, tuple(row[level] for level in LEVELS)), []).append(row)
    return made


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The table in texts, days as YYYY-MM-DD and what is empty as "".

    Raises
    ------
    UserError : for a column that is missing, and a cell that cannot be read.
    """
    absent = [name for name in LONG if name not in table]
    if absent:
        raise UserError(f"the table has no column {', '.join(map(repr, absent))}", fix=f"a table has {', '.join(LONG)}")
    made = pd.DataFrame({name: _as_texts(table[name]) for name in LONG}, dtype=object)
    for number, (day, value, measure) in enumerate(zip(made["date"], made["value"], made["measure"], strict=True)):
        try:
            written = date.fromisoformat(day).isoformat() == day
            readable = written and Decimal(value).is_finite() and measure in MEASURES
        except (ValueError, ArithmeticError):
            readable = False
        if not readable:
            raise UserError(
                f"row {number} of the table: found date {day!r}, measure {measure!r}, value {value!r}",
                fix=f"a day, a number, and one of {', '.join(MEASURES)}",
            )
    return made


def _as_texts(column: pd.Series) -> list[str]:
    if column.dtype.kind == "M":
        return ["" if text != text else text for text in column.dt.strftime("%Y-%m-%d")]
    return [_as_text(value) for value in column.to_numpy(dtype=object)]


def _as_text(value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime) and value == datetime.combine(value.date(), time()):
        return value.date().isoformat()
    return str(value)
