"""Amounts, dates and companies in text, against values written by hand."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1core_events.amounts import amounts
from r1core_events.arguments import company
from r1core_events.dates import dates
from r1core_events.values import listed

WORDS = frozenset(listed("the board of shares said agreed to buy declares special dividend on in a profit fell"))


@pytest.mark.parametrize(
    ("spelled", "value", "currency"),
    [
        ("$1.2 billion", "1200000000", "USD"),
        ("USD 45 million", "45000000", "USD"),
        ("EUR 300m", "300000000", "EUR"),
        ("€2bn", "2000000000", "EUR"),
        ("3.5 million euros", "3500000", "EUR"),
        ("12,500 dollars", "12500", "USD"),
        ("C$10", "10", "CAD"),
        ("£5m", "5000000", "GBP"),
        ("$0.45", "0.45", "USD"),
        ("JPY 300 bn", "300000000000", "JPY"),
        ("$138,789,000", "138789000", "USD"),
        ("7 trillion yen", "7000000000000", "JPY"),
    ],
)
def test_amounts_are_exact(spelled: str, value: str, currency: str) -> None:
    text = f"It paid {spelled} for the unit."
    (found,) = amounts(text, 0, len(text))
    assert text[found.start : found.end] == spelled
    assert (found.value.value, found.value.currency) == (Decimal(value), currency)  # type: ignore[union-attr]


@given(st.integers(0, 10**9), st.integers(0, 99), st.sampled_from(["million", "billion", "m", "bn"]))
def test_any_amount_in_dollars_is_read_back(whole: int, cents: int, scale: str) -> None:
    text = f"A charge of ${whole:,}.{cents:02d} {scale}."
    (found,) = amounts(text, 0, len(text))
    zeros = 6 if scale.startswith("m") else 9
    assert found.value.value == Decimal(f"{whole}.{cents:02d}") * 10**zeros  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["45 percent of 300 workers", "room 12 on floor 3", "5 m long", "Rs", "$", "$ million"]
)
def test_other_numbers_are_no_amounts(text: str) -> None:
    assert list(amounts(text, 0, len(text))) == []


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)))
def test_any_day_is_read_back_in_each_spelling(day: datetime.date) -> None:
    month = day.strftime("%B")
    for spelled in (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}", day.isoformat()):
        text = f"It was signed on {spelled} in the evening."
        (found,) = dates(text, 0, len(text))
        assert (text[found.start : found.end], found.value) == (spelled, day.isoformat())


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ("Tuesday", "Tuesday"),
        ("third quarter of 2023", "2023-Q3"),
        ("second-quarter", "Q2"),
        ("Q3 2022", "2022-Q3"),
        ("May 2024", "2024-05"),
        ("March 3", "--03-03"),
        ("Sept. 5, 2021", "2021-09-05"),
    ],
)
def test_weekdays_quarters_and_parts_of_dates(spelled: str, value: str) -> None:
    text = f"Sales of {spelled} were weak."
    (found,) = dates(text, 0, len(text))
    assert (text[found.start : found.end], found.value) == (spelled, value)


@pytest.mark.parametrize("text", ["on February 30, 2024", "2024-13-01", "it may rise", "the March of progress"])
def test_days_of_no_calendar_are_left_out(text: str) -> None:
    assert list(dates(text, 0, len(text))) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The board of Norvale Industries Inc. agreed to buy Tarn Harbour Bank", "Norvale Industries Inc."),
        ("Quillmere Foods' profit fell", "Quillmere Foods"),
        ("In Ostland, shares of Brack & Hollow plc fell", "Brack & Hollow plc"),
        ("Quillmere Foods Declares Special Dividend on Tuesday", "Quillmere Foods"),
        ("Shares of Zanmere fell", "Zanmere"),
        ("the shares fell", None),
        ("", None),
    ],
)
def test_the_company_is_the_name_that_the_clause_is_about(text: str, name: str | None) -> None:
    days = list(dates(text, 0, len(text)))
    found = company(text, 0, len(text), WORDS, days)
    assert (found.value if found else None) == name
