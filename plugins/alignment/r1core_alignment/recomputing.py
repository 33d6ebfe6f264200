"""What a cell has to hold, recomputed the slow way: first everything not yet filed is thrown away, then one looks.

Plain loops over plain values. Of the code that aligns it shares the lengths of periods and the text of a source, and
nothing else: what is filed later cannot reach a result here, since it is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

from r1core_alignment.periods import LENGTHS, YEAR, Measure
from r1core_alignment.provenance import Source

Number = int | Decimal
Period = tuple[date | None, date]
_DAY = timedelta(days=1)
_LADDER: tuple[Measure, ...] = ("quarter", "six_months", "nine_months", "year")


@dataclass(frozen=True, slots=True)
class Fact:
    """One reported fact."""

    value: Number
    start: date | None
    end: date
    filed: date
    accession: str
    form: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell has to hold; `parts` are facts with their signs, `starts` of its quarters, the newest first."""

    value: Number
    start: date | None
    end: date
    rule: str
    parts: tuple[tuple[int, Fact], ...]
    starts: tuple[date | None, ...]

    @property
    def known(self) -> date:
        """The last filing date among the facts that it is made of."""
        return max(fact.filed for _, fact in self.parts)


def filed_before(facts: Iterable[Fact], day: date, lag: int) -> list[Fact]:
    """The facts that are known on a day: filed, and the lag gone by, strictly before it."""
    return [fact for fact in facts if fact.filed + timedelta(days=lag) < day]


def cell_of(known: Sequence[Fact], measure: Measure, *, additive: bool) -> Cell | None:
    """What is known of one measure: the latest period end, then a reported period, then the latest filing."""
    newest = _newest(known)
    if measure == "instant":
        found = [_reported(fact) for (start, _), fact in newest.items() if start is None]
    elif measure == "quarter":
        found = list(_quarters(newest, additive).values())
    elif measure == "ttm":
        found = list(_twelve_months(_quarters(newest, True))) if additive else []
    else:
        found = [_reported(fact) for period, fact in newest.items() if _is(measure, *period)]
    return max(found, key=_preferred, default=None)


def sources_of(cell: Cell, known: Sequence[Fact]) -> list[Source]:
    """The facts of a cell as its provenance has to name them."""
    return [
        Source(
            sign,
            fact.value,
            None if fact.start is None else fact.start.isoformat(),
            fact.end.isoformat(),
            fact.filed.isoformat(),
            _since(fact, known).isoformat(),
            fact.accession,
            fact.form,
        )
        for sign, fact in cell.parts
    ]


def _newest(known: Sequence[Fact]) -> dict[Period, Fact]:
    made: dict[Period, Fact] = {}
    for fact in known:
        held = made.get((fact.start, fact.end))
        if held is None or (fact.filed, fact.accession) > (held.filed, held.accession):
            made[fact.start, fact.end] = fact
    return made


def _is(measure: Measure, start: date | None, end: date) -> bool:
    least, most = LENGTHS[measure]
    return start is not None and least <= (end - start).days + 1 <= most


def _reported(fact: Fact) -> Cell:
    return Cell(fact.value, fact.start, fact.end, "reported", ((1, fact),), (fact.start,))


def _quarters(newest: Mapping[Period, Fact], additive: bool) -> dict[Period, Cell]:
    made = {period: _reported(fact) for period, fact in newest.items() if _is("quarter", *period)}
    derived: dict[Period, tuple[tuple[date, date], Cell]] = {}
    for short, long in pairwise(_LADDER) if additive else ():
        parts = [fact for period, fact in newest.items() if _is(short, *period)]
        for whole in (fact for period, fact in newest.items() if _is(long, *period)):
            for part in parts:
                start, end = part.end + _DAY, whole.end
                if whole.start is None or whole.start != part.start or start > end or not _is("quarter", start, end):
                    continue
                cell = Cell(
                    whole.value - part.value, start, end, f"{long} - {short}", ((1, whole), (-1, part)), (start,)
                )
                rank = (cell.known, whole.start)
                if (start, end) not in made and ((start, end) not in derived or rank > derived[start, end][0]):
                    derived[start, end] = rank, cell
    return made | {period: cell for period, (_, cell) in derived.items()}


def _twelve_months(quarters: Mapping[Period, Cell]) -> Iterator[Cell]:
    for last in quarters.values():
        for chain in _chains((last,), quarters):
            first = chain[-1]
            assert first.start is not None
            if YEAR[0] <= (last.end - first.start).days + 1 <= YEAR[1]:
                parts = tuple(part for one in chain for part in one.parts)
                total = sum(one.value for one in chain)
                yield Cell(total, first.start, last.end, "four quarters", parts, tuple(one.start for one in chain))


def _chains(chain: tuple[Cell, ...], quarters: Mapping[Period, Cell]) -> Iterator[tuple[Cell, ...]]:
    """Four quarters, the newest first, each beginning on the day after the one before it ends."""
    if len(chain) == 4:
        yield chain
        return
    begun = chain[-1].start
    for cell in quarters.values():
        if begun is not None and cell.end + _DAY == begun:
            yield from _chains((*chain, cell), quarters)


def _preferred(cell: Cell) -> tuple[date, bool, date, tuple[date, ...]]:
    return cell.end, cell.rule == "reported", cell.known, tuple(start or date.min for start in cell.starts)


def _since(fact: Fact, known: Sequence[Fact]) -> date:
    """From which filing date on the newest filings have stated the fact's value of its period without a break."""
    told: dict[date, Fact] = {}
    for one in known:
        if (one.start, one.end) == (fact.start, fact.end) and one.filed <= fact.filed:
            told[one.filed] = max(told.get(one.filed, one), one, key=lambda held: held.accession)
    since = fact.filed
    for filed in sorted(told, reverse=True):
        if told[filed].value != fact.value:
            break
        since = filed
    return since
