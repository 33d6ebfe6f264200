"""Random facts against a reference that walks through the dates one by one and shares no code with the plugin."""

from __future__ import annotations

import datetime
from fractions import Fraction
from typing import Any, NamedTuple

import pandas as pd
import pytest
import r1core_alignment as alignment
from hypothesis import given, settings
from hypothesis import strategies as st

ORIGIN = datetime.date(2019, 1, 1)
CUTS = {
    "calendar": [f"{year}-{cut}" for year in (2019, 2020, 2021, 2022) for cut in ("03-31", "06-30", "09-30", "12-31")],
    "weeks": [str(datetime.date(2018, 12, 29) + datetime.timedelta(weeks=13 * n + (n > 7))) for n in range(1, 17)],
    "retail": [
        str(datetime.date(2018, 12, 29) + datetime.timedelta(weeks=52 * (n // 4) + 12 * (n % 4))) for n in range(1, 17)
    ],
}
CONCEPTS = (("us-gaap:Revenues", "USD"), ("us-gaap:EarningsPerShareBasic", "USD/shares"))
MEASURES = ("instant", "quarter", "six_months", "nine_months", "year", "ttm")


class Row(NamedTuple):
    concept: str
    start: datetime.date | None
    end: datetime.date
    filed: datetime.date
    accession: str
    value: str


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Facts of two concepts over one calendar; now and then a start is a day off."""
    cuts = [datetime.date.fromisoformat(cut) for cut in CUTS[draw(st.sampled_from(sorted(CUTS)))]]
    made: dict[tuple[Any, ...], Row] = {}
    for _ in range(draw(st.integers(1, 40))):
        concept = draw(st.sampled_from((0, 0, 0, 1)))
        first = draw(st.integers(0, 14))
        width = draw(st.sampled_from((0, 1, 1, 1, 2, 3, 3, 4, 4)))
        if width and draw(st.booleans()):
            first -= first % 4  # most periods begin with a year
        last = min(first + max(width, 1), 15)
        slip = datetime.timedelta(days=draw(st.sampled_from((0, 0, 0, 0, 0, 1, -1))))
        start = cuts[first] + datetime.timedelta(days=1) + slip if width else None
        filed = cuts[last] + datetime.timedelta(days=draw(st.sampled_from((0, 20, 20, 40, 110, 200, 385, 750))))
        accession = f"0-{draw(st.integers(0, 3))}"
        value = draw(st.sampled_from(("", "-"))) + str(draw(st.integers(0, 99)) / draw(st.sampled_from((1, 1, 4))))
        row = Row(CONCEPTS[concept][0], start, cuts[last], filed, accession, value)
        made[row[:5]] = row  # one filing states a period once
    return list(made.values())


def known_on(every: list[Row], concept: str, date: datetime.date, lag: int) -> dict[Any, Row]:
    """Each period's newest statement among those filed before a date."""
    newest: dict[Any, Row] = {}
    for row in sorted(every, key=lambda one: (one.filed, one.accession)):
        if row.concept == concept and row.filed + datetime.timedelta(days=lag) < date:
            newest[row.start, row.end] = row
    return newest


def weeks(start: datetime.date, end: datetime.date) -> float:
    return ((end - start).days + 1) / 7


def class_of(start: datetime.date | None, end: datetime.date) -> str:
    if start is None:
        return "instant"
    length = weeks(start, end)
    for name, least, most in (
        ("quarter", 11.5, 17),
        ("six_months", 23.5, 28.5),
        ("nine_months", 35.7, 40.7),
        ("year", 50, 54.2),
    ):
        if least < length <= most:
            return name
    return "none"


def reference(
    every: list[Row], concept: str, measure: str, date: datetime.date, lag: int
) -> tuple[Fraction, Any] | None:
    """Value, and the set of (sign, accession, start, end) of what it is made of."""
    newest = known_on(every, concept, date, lag)
    additive = concept == CONCEPTS[0][0]
    named = {period: (Fraction(row.value), ((1, row),)) for period, row in newest.items()}
    if measure in ("instant", "six_months", "nine_months", "year"):
        found = [(p[1], r[0][1].filed, p[0] or ORIGIN, v, r) for p, (v, r) in named.items() if class_of(*p) == measure]
    else:
        quarters: dict[Any, tuple[bool, datetime.date, Fraction, Any]] = {}
        for period, (value, parts) in named.items():
            if class_of(*period) == "quarter":
                quarters[period] = True, parts[0][1].filed, value, parts
        order = ["quarter", "six_months", "nine_months", "year"]
        pairs = [
            (long, short)
            for long in newest.values()
            for short in newest.values()
            if additive and long.start is not None and long.start == short.start
            and class_of(long.start, long.end) in order[1:]
            and class_of(short.start, short.end) == order[order.index(class_of(long.start, long.end)) - 1]
        ]  # fmt: skip
        for long, short in sorted(pairs, key=lambda pair: (max(pair[0].filed, pair[1].filed), pair[0].start)):
            period = short.end + datetime.timedelta(days=1), long.end
            if class_of(*period) == "quarter" and not quarters.get(period, (False,))[0]:
                value = Fraction(long.value) - Fraction(short.value)
                quarters[period] = False, max(long.filed, short.filed), value, ((1, long), (-1, short))
        if measure == "quarter":
            best = [(p[1], told, known, p[0], value, parts) for p, (told, known, value, parts) in quarters.items()]
            best.sort(key=lambda one: one[:4])
            return (best[-1][4], names(best[-1][5])) if best else None
        if not additive:
            return None
        found = []
        by_end: dict[datetime.date, list[Any]] = {}
        for period in quarters:
            by_end.setdefault(period[1], []).append(period)
        day = datetime.timedelta(days=1)
        for a in quarters:
            for b in by_end.get(a[0] - day, []):
                for c in by_end.get(b[0] - day, []):
                    for d in by_end.get(c[0] - day, []):
                        if 350 <= (a[1] - d[0]).days + 1 <= 380:
                            four = [quarters[p] for p in (a, b, c, d)]
                            parts = tuple(part for one in four for part in one[3])
                            starts = a[0], b[0], c[0], d[0]
                            found.append((a[1], max(o[1] for o in four), starts, sum(o[2] for o in four), parts))
    if not found:
        return None
    _, _, _, value, parts = sorted(found, key=lambda one: one[:3])[-1]
    return value, names(parts)


def names(parts: Any) -> list[tuple[int, str, str, str]]:
    return sorted((sign, row.accession, str(row.start), str(row.end)) for sign, row in parts)


DAY = datetime.timedelta(days=1)


def check_cells(every: list[Row], lag: int) -> None:
    """Every cell on the day on which a filing is not known yet, and on the day on which it is."""
    frame = pd.DataFrame(every).assign(entity="ACME", form="10-Q")
    frame["unit"] = frame["concept"].map(dict(CONCEPTS))
    dates = sorted({row.filed + DAY * more for row in every for more in (lag, lag + 1)})
    aligned = alignment.align(frame, grid=dates, measures=MEASURES, lag=lag)
    present = {column: number for number, column in enumerate(aligned.columns)}
    cards, values = aligned.provenance.to_numpy(), aligned.values.to_numpy()
    for concept, unit in CONCEPTS:
        for measure in MEASURES:
            number = present.get(("ACME", concept, unit, measure))
            for place, date in enumerate(dates):
                expected = reference(every, concept, measure, date, lag)
                card = None if number is None else cards[place, number]
                if expected is None:
                    assert card is None
                    continue
                assert number is not None
                assert card is not None
                assert Fraction(card.value) == expected[0]
                assert values[place, number] == float(expected[0])
                assert sorted((one.sign, one.accession, str(one.start), one.end) for one in card.sources) == expected[1]
                assert all(datetime.date.fromisoformat(one.filed) + DAY * lag < date for one in card.sources)


def check_past(every: list[Row], max_age: int | None) -> None:
    """The audit finds nothing, and what is filed from a date on changes nothing before it."""
    frame = pd.DataFrame(every).assign(entity="ACME", unit="USD", form="10-Q")
    how: dict[str, Any] = {"start": "2019-06-01", "end": "2023-12-31", "grid": "quarter", "measures": MEASURES}
    aligned = alignment.align(frame, **how, max_age=max_age)
    report = aligned.audit()
    assert report.ok, report.findings[:3]
    assert report.look_ahead == 0
    date = aligned.dates[len(aligned.dates) // 2]
    past = frame[pd.to_datetime(frame["filed"]) < date]
    if len(past):
        told = aligned.long(exact=True)
        then = alignment.align(past, **how, max_age=max_age).long(exact=True)
        rows = [one[one["date"] <= date].reset_index(drop=True) for one in (told, then)]
        pd.testing.assert_frame_equal(*rows, check_dtype=False)


@settings(max_examples=25, deadline=None)
@given(rows(), st.sampled_from((0, 0, 3)))
def test_every_cell_is_what_a_walk_through_the_dates_gives(every: list[Row], lag: int) -> None:
    check_cells(every, lag)


@settings(max_examples=20, deadline=None)
@given(rows(), st.sampled_from((None, 200)))
def test_the_audit_agrees_and_the_future_does_not_matter(every: list[Row], max_age: int | None) -> None:
    check_past(every, max_age)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(rows(), st.sampled_from((0, 1, 3)), st.sampled_from((None, 100, 200)))
def test_many_more_random_facts(every: list[Row], lag: int, max_age: int | None) -> None:
    check_cells(every, lag)
    check_past(every, max_age)
