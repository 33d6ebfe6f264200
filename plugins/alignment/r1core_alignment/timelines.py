"""What was known of each period, and from when: facts as they were filed, and quarters and twelve months made of them.

A version of a period is known from the day after `known`, until the next version of it. All of it is a function of
what is filed by then: a version made of several facts is known when the last of them is. Not covered: restatements
that reach one of two subtracted periods only; both are taken as they were last filed.
"""

# P = periods, V = versions, K = parts of a version, E = events

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from r1core_alignment.days import BITS, Days
from r1core_alignment.exact import combined
from r1core_alignment.facts import Facts, Names
from r1core_alignment.periods import LENGTHS, YEAR

Indices = NDArray[np.int64]
RULES = ("reported", "six_months - quarter", "nine_months - six_months", "year - nine_months", "four quarters")
REPORTED, DIFFERENCES, FOUR = 0, (1, 2, 3), 4
_NEVER = 2**BITS


@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """Versions of periods, in the order of period and `known`; periods in the order of series, end and start.

    Parameters
    ----------
    series, start, end : (P,) of each period. first : (P + 1,) where its versions begin.
    known : (V,) the last filing date among what it is made of; ascending within a period.
    mantissa, scale : (V,) the value, exactly.
    rule : (V,) place in `RULES`.
    parts : (V, K) rows of the facts, -1 where there are fewer; of a sum of four quarters, versions of `quarters`.
    """

    series: Indices
    start: Days
    end: Days
    first: Indices
    known: Days
    mantissa: NDArray[np.int64]
    scale: NDArray[np.int8]
    rule: NDArray[np.int8]
    parts: Indices
    quarters: Timeline | None = None

    @cached_property
    def period(self) -> Indices:
        """(V,) the period of each version."""
        return np.repeat(np.arange(len(self.series)), np.diff(self.first))

    @cached_property
    def _key(self) -> Indices:
        return self.period << BITS | self.known

    def at(self, periods: Indices, day: Days) -> Indices:
        """The newest version of each period that is known by that filing date, -1 where there is none; any shape."""
        alone = self.first[periods + 1] - self.first[periods] == 1
        made = self.first[periods]
        many = ~alone
        made[many] = np.searchsorted(self._key, periods[many] << BITS | day[many], side="right") - 1
        made[(made < self.first[periods]) | (self.known[np.maximum(made, 0)] > day)] = -1
        return made

    def versions(self, periods: Indices) -> tuple[Indices, Indices]:
        """Every version of these periods: places in `periods`, and the versions, (E,) each."""
        return ragged(self.first[periods], self.first[periods + 1])


def ragged(low: Indices, high: Indices) -> tuple[Indices, Indices]:
    """All integers of the ranges [low, high): which range, and the integer."""
    counts = high - low
    which = np.repeat(np.arange(len(low)), counts)
    return which, np.arange(len(which)) + np.repeat(low - np.cumsum(counts) + counts, counts)


def reported(facts: Facts, kind: int) -> Timeline:
    """The facts of one kind of period, as they were filed; of several filings on one day the last accession."""
    rows = np.flatnonzero(facts.kind == kind)
    code, start, end, filed = (one[rows] for one in (facts.code, facts.start, facts.end, facts.filed))
    new = _changes(code, end, start)
    last = np.append(new[1:] | (filed[1:] != filed[:-1]), True)[: len(rows)]
    rows, new_period = rows[last], np.cumsum(new)[last]
    first = np.flatnonzero(_changes(new_period))
    return Timeline(
        facts.code[rows][first],
        facts.start[rows][first],
        facts.end[rows][first],
        np.append(first, len(rows)),
        facts.filed[rows],
        facts.mantissa[rows],
        facts.scale[rows],
        np.zeros(len(rows), np.int8),
        rows[:, None],
    )


def quarters(facts: Facts, spans: Sequence[Timeline], additive: NDArray[np.bool_]) -> Timeline:
    """Quarters: those that are reported, and differences of longer periods with the same first day.

    A quarter that is reported replaces its difference from its filing on, and for good.

    Parameters
    ----------
    spans : reported quarters, six months, nine months and years. additive : (S,) series whose periods add up.
    """
    told = spans[0]
    made = [_differences(facts, spans[n + 1], spans[n], DIFFERENCES[n], additive) for n in range(3)]
    series, start, end, known, rule, first_part, second_part, minuend = (
        np.concatenate(one) for one in zip(*made, strict=True)
    )
    reported_first = _first_known(told, series, start, end)
    kept = known < reported_first
    period = told.period
    columns = [
        np.concatenate((mine, other[kept]))
        for mine, other in (
            (told.series[period], series),
            (told.start[period], start),
            (told.end[period], end),
            (told.known, known),
            (told.rule, rule),
            (told.parts[:, 0], first_part),
            (np.full(len(period), -1), second_part),
            (told.start[period], minuend),
        )
    ]
    series, start, end, known, rule, first_part, second_part, minuend = columns
    order = np.lexsort((known << BITS | minuend, _pack(series, end, start)))
    series, start, end, known, rule = (one[order] for one in (series, start, end, known, rule))
    parts = np.stack((first_part[order], second_part[order]), axis=1)
    new = _changes(series, end, start)
    # of two differences of one day the one with the shorter year
    last = np.append(new[1:] | (known[1:] != known[:-1]), True)[: len(new)]
    series, start, end, known, rule, parts = (one[last] for one in (series, start, end, known, rule, parts))
    first = np.flatnonzero(_changes(series, end, start))
    mantissa, scale = _valued(facts, parts)
    return Timeline(
        series[first], start[first], end[first], np.append(first, len(series)), known, mantissa, scale, rule, parts
    )  # fmt: skip


def twelve_months(told: Timeline, additive: NDArray[np.bool_], names: Names) -> Timeline:
    """Sums of four quarters, each beginning on the day after the one before it ends, a year long in all.

    Versions that are never the newest at any date, because a later twelve months is known by then, are left out.
    `additive` : (S,) series whose periods add up. `names` : (S,) their concepts, for messages.
    """
    chain = np.flatnonzero(additive[told.series])[:, None]
    ends, before = (told.series << BITS | day for day in (told.end, told.start - 1))
    low, high = (np.searchsorted(ends, before, side) for side in ("left", "right"))
    for _ in range(3):  # newest quarter first
        which, found = ragged(low[chain[:, -1]], high[chain[:, -1]])
        chain = np.concatenate((chain[which], found[:, None]), axis=1)
    length = told.end[chain[:, 0]] - told.start[chain[:, 3]] + 1
    chain = chain[(length >= YEAR[0]) & (length <= YEAR[1])]
    series, end = told.series[chain[:, 0]], told.end[chain[:, 0]]
    begun = told.known[told.first[chain]].max(axis=1)
    until = _superseded(series, end, begun)
    live = np.flatnonzero(begun < until)
    restated = live[told.known[told.first[chain[live] + 1] - 1].max(axis=1) > begun[live]]
    which, version = told.versions(chain[restated].ravel())
    owner, known = restated[which // 4], told.known[version]
    later = (known > begun[owner]) & (known < until[owner])
    key = live << BITS | begun[live]
    if later.any():
        key = np.unique(np.concatenate((key, owner[later] << BITS | known[later])))
    owner, known = key >> BITS, key & (_NEVER - 1)
    parts = told.at(chain[owner], np.repeat(known[:, None], 4, axis=1))
    mantissa, scale = combined(
        told.mantissa[parts],
        told.scale[parts],
        np.ones((1, 4), np.int64),
        lambda at: names[told.series[chain[owner[at], 0]]],
    )
    first = np.flatnonzero(_changes(owner))
    held = chain[owner[first]]
    rule = np.full(len(owner), FOUR, np.int8)
    return Timeline(
        told.series[held[:, 0]], told.start[held[:, 3]], told.end[held[:, 0]], np.append(first, len(owner)),
        known, mantissa, scale, rule, parts, told,
    )  # fmt: skip


def _differences(
    facts: Facts, longer: Timeline, shorter: Timeline, rule: int, additive: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], ...]:
    """Versions of differences: series, start, end, known, rule, both parts, start of the longer period; (E,) each."""
    order = np.lexsort((shorter.start, shorter.series))
    begins = (shorter.series << BITS | shorter.start)[order]
    mine = np.flatnonzero(additive[longer.series])
    key = longer.series[mine] << BITS | longer.start[mine]
    which, place = ragged(np.searchsorted(begins, key, "left"), np.searchsorted(begins, key, "right"))
    long, short = mine[which], order[place]
    length = longer.end[long] - shorter.end[short]
    fits = (length >= LENGTHS["quarter"][0]) & (length <= LENGTHS["quarter"][1])
    long, short = long[fits], short[fits]
    one, of_long = longer.versions(long)
    other, of_short = shorter.versions(short)
    with_long = shorter.at(short[one], longer.known[of_long])
    with_short = longer.at(long[other], shorter.known[of_short])
    told = with_long >= 0
    alone = with_short >= 0
    alone[alone] &= longer.known[with_short[alone]] != shorter.known[of_short[alone]]  # else it is told already
    pair = np.concatenate((one[told], other[alone]))
    first = np.concatenate((of_long[told], with_short[alone]))
    second = np.concatenate((with_long[told], of_short[alone]))
    return (
        longer.series[long[pair]],
        shorter.end[short[pair]] + 1,
        longer.end[long[pair]],
        np.maximum(longer.known[first], shorter.known[second]),
        np.full(len(pair), rule, np.int64),
        longer.parts[first, 0],
        shorter.parts[second, 0],
        longer.start[long[pair]],
    )


def _valued(facts: Facts, parts: Indices) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The first part, less the second one where there is one; (V, 2) rows of facts."""
    mantissa, scale = facts.mantissa[parts[:, 0]], facts.scale[parts[:, 0]]
    two = np.flatnonzero(parts[:, 1] >= 0)
    names = facts.series["concept"].to_numpy()
    mantissa[two], scale[two] = combined(
        facts.mantissa[parts[two]],
        facts.scale[parts[two]],
        np.array([[1, -1]]),
        lambda at: names[facts.code[parts[two[at], 0]]],
    )
    return mantissa, scale


def _first_known(told: Timeline, series: Indices, start: Days, end: Days) -> Days:
    """When each of these periods was first reported, `_NEVER` where it was not."""
    made = np.full(len(series), _NEVER)
    if not len(told.series):
        return made
    mine, wanted = _pack(told.series, told.end, told.start), _pack(series, end, start)
    place = np.minimum(np.searchsorted(mine, wanted), len(mine) - 1)
    hit = mine[place] == wanted
    made[hit] = told.known[told.first[place[hit]]]
    return made


def _superseded(series: Indices, end: Days, begun: Days) -> Days:
    """The filing date by which something with a later end is known; rows in the order of series and end."""
    if not len(series):
        return begun
    group = np.flatnonzero(_changes(series, end))
    key = series[group] << (BITS + 1) | np.minimum.reduceat(begun, group)
    later = np.append(np.minimum.accumulate(key[::-1])[::-1][1:], np.iinfo(np.int64).max)
    until = np.where(later >> (BITS + 1) == series[group], later & (2 * _NEVER - 1), _NEVER)
    return np.repeat(until, np.diff(np.append(group, len(series))))


def _pack(series: Indices, end: Days, start: Days) -> Indices:
    return (series << BITS | end) << BITS | start


def _changes(*columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a row differs from the one before it in any of these columns; the first row does."""
    made = np.zeros(len(columns[0]), bool)
    made[:1] = True
    for one in columns:
        made[1:] |= one[1:] != one[:-1]
    return made
