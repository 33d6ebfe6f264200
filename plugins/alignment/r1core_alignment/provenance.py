"""Where a value comes from: the facts behind it, each with the filing that states it, and the text that names one.

Not covered: the text of the filing, and who restated what for which reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from r1core_alignment.days import Days, iso
from r1core_alignment.exact import as_numbers
from r1core_alignment.facts import Facts
from r1core_alignment.periods import INSTANT
from r1core_alignment.timelines import RULES, Timeline

_DAY = r"\d{4}-\d\d-\d\d"
_TEXT = re.compile(
    rf"(plus|less) (\S+) (?:({_DAY})\.\.)?({_DAY}) filed ({_DAY}) first ({_DAY}) as (.+) \((.+)\)", re.DOTALL
)
_SIGNS = (1, -1)


@dataclass(frozen=True, slots=True)
class Source:
    """One fact behind a cell; its text is `plus VALUE START..END filed DAY first DAY as ACCESSION (FORM)`.

    Parameters
    ----------
    sign : 1, or -1 where it is taken off. value : `int` where whole, else `Decimal`.
    start, end : its period, no start for an instant.
    filed : of the newest filing that states it. first_filed : of the first in an unbroken row that state this value.
    """

    sign: int
    value: int | Decimal
    start: str | None
    end: str
    filed: str
    first_filed: str
    accession: str
    form: str

    def __str__(self) -> str:
        period = self.end if self.start is None else f"{self.start}..{self.end}"
        told = f"{'plus' if self.sign > 0 else 'less'} {plain(self.value)} {period}"
        return f"{told} filed {self.filed} first {self.first_filed} as {self.accession} ({self.form})"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where one cell comes from.

    Parameters
    ----------
    value : `int` where whole, else `Decimal`. rule : `reported`, or what it is made of.
    start, end : its period; no start for an instant.
    accession, filed, form : of the source that was filed last: it is known from the day after `filed` (and the lag) on.
    first_filed : from which filing date on the newest filings have given this value without a break.
    sources : the facts that it is made of.
    """

    value: int | Decimal
    rule: str
    start: str | None
    end: str
    accession: str
    filed: str
    form: str
    first_filed: str
    sources: tuple[Source, ...]


def plain(value: int | Decimal) -> str:
    """A number in digits, without an exponent."""
    return str(value) if isinstance(value, int) else f"{value:f}"


def parse(text: str) -> Source | None:
    """The source that a text names, or None where it is no such text."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    sign, value, start, end, filed, first, accession, form = found.groups()
    try:
        amount = Decimal(value)
    except ArithmeticError:
        return None
    return Source(1 if sign == "plus" else -1, amount, start, end, filed, first, accession, form)


def cards_of(facts: Facts, told: Timeline, versions: np.ndarray, first: Days) -> list[Provenance]:
    """The provenance of each of these versions of a timeline; `first` as `first_filed` gives it."""
    known: dict[int, Source] = {}
    values = as_numbers(told.mantissa[versions], told.scale[versions])
    return [
        _card(told, int(version), value, tuple(_sources(facts, told, int(version), first, known)))
        for version, value in zip(versions, values, strict=True)
    ]


def first_filed(facts: Facts) -> Days:
    """For each fact, since which filing date the newest filings have stated this value without a break, (N,)."""
    period = np.stack((facts.code, facts.kind, facts.end, facts.start))
    changed = (period[:, 1:] != period[:, :-1]).any(axis=0)
    newest = np.append(changed | (facts.filed[1:] != facts.filed[:-1]), True)[: len(facts)]
    rows = np.flatnonzero(newest)
    new = np.ones(len(rows), bool)
    new[1:] = (period[:, rows[1:]] != period[:, rows[:-1]]).any(axis=0)
    for values in (facts.mantissa, facts.scale):
        new[1:] |= values[rows[1:]] != values[rows[:-1]]
    made = facts.filed.copy()
    made[rows] = facts.filed[rows[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]]
    return made


def _card(told: Timeline, version: int, value: int | Decimal, sources: Sequence[Source]) -> Provenance:
    newest = max(sources, key=lambda one: (one.filed, one.accession))
    period = told.period[version]
    return Provenance(
        value=value,
        rule=RULES[told.rule[version]],
        start=None if sources[0].start is None else iso(told.start[period]),
        end=iso(told.end[period]),
        accession=newest.accession,
        filed=newest.filed,
        form=newest.form,
        first_filed=max(one.first_filed for one in sources),
        sources=tuple(sources),
    )


def _sources(facts: Facts, told: Timeline, version: int, first: Days, known: dict[int, Source]) -> list[Source]:
    """The facts behind a version; `known` keeps those that were made before, by row."""
    parts = told.parts[version].tolist()
    if told.quarters is not None:
        return [one for part in parts for one in _sources(facts, told.quarters, part, first, known)]
    made = []
    for row, sign in zip(parts, _SIGNS, strict=False):
        if row >= 0:
            if row not in known:
                known[row] = _stated(facts, row, first)
            made.append(known[row] if sign > 0 else replace(known[row], sign=sign))
    return made


def _stated(facts: Facts, row: int, first: Days) -> Source:
    return Source(
        sign=1,
        value=as_numbers(facts.mantissa[[row]], facts.scale[[row]])[0],
        start=None if facts.kind[row] == INSTANT else iso(facts.start[row]),
        end=iso(facts.end[row]),
        filed=iso(facts.filed[row]),
        first_filed=iso(first[row]),
        accession=str(facts.accessions[facts.accession[row]]),
        form=str(facts.forms[facts.form[row]]),
    )
