"""What is read out of a text, and what is not: spellings with their values, and properties over all of them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_numeric.reader import Reading, read, read_cell

SPELLINGS = [
    # text, value, unit, what the sign was written as
    ("$1.2 million", "1200000", "USD", "none"),
    ("$(1.2) million", "-1200000", "USD", "parentheses"),
    ("($1.2 million)", "-1200000", "USD", "parentheses"),
    ("£0.5bn", "500000000", "GBP", "none"),
    ("US$5m", "5000000", "USD", "none"),
    ("USD 5", "5", "USD", "none"),
    ("EUR5", "5", "EUR", "none"),
    ("5 million euros", "5000000", "EUR", "none"),
    ("5 €", "5", "EUR", "none"),
    ("1,234", "1234", "unstated", "none"),
    ("(1,234)", "-1234", "unstated", "parentheses"),
    ("12,34,567", "1234567", "unstated", "none"),
    ("1'234'567", "1234567", "unstated", "none"),
    ("1\u202f234\u00a0567", "1234567", "unstated", "none"),
    ("-5", "-5", "unstated", "minus"),
    ("\u22125", "-5", "unstated", "minus"),
    ("+5%", "0.05", "percent", "plus"),
    ("minus 5", "-5", "unstated", "word"),
    ("-$5", "-5", "USD", "minus"),
    ("$-5", "-5", "USD", "minus"),
    ("12.5%", "0.125", "percent", "none"),
    ("(5.3)%", "-0.053", "percent", "parentheses"),
    ("5 per cent", "0.05", "percent", "none"),
    ("12.5bps", "0.00125", "basis_point", "none"),
    ("50 basis points", "0.005", "basis_point", "none"),
    ("3x", "3", "multiple", "none"),
    ("3.5 times", "3.5", "multiple", "none"),
    ("1e6", "1000000", "unstated", "none"),
    ("$2.79 per share", "2.79", "USD/share", "none"),
    ("10-year", "10", "year", "none"),
    ("2 lakh", "200000", "unstated", "none"),
    ("5k", "5000", "unstated", "none"),
    (".5", "0.5", "unstated", "none"),
    ("½", "0.5", "unstated", "none"),
    ("１２３", "123", "unstated", "none"),
    ("٥", "5", "unstated", "none"),
    ("two million dollars", "2000000", "USD", "none"),
    ("twenty-five percent", "0.25", "percent", "none"),
    ("three hundred and five thousand", "305000", "unstated", "none"),
    ("a dozen", "12", "unstated", "none"),
    ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789", "unstated", "none"),
]


@pytest.mark.parametrize(("text", "value", "unit", "sign"), SPELLINGS)
def test_a_spelling_has_its_exact_value(text: str, value: str, unit: str, sign: str) -> None:
    for around in ("{}", "It was {} in total.", "Of {}, all went; so", "\n{}\n", "“{}”"):
        whole = around.format(text)
        found = [n for n in read(whole) if n.kind == "quantity"]
        assert [(n.value, str(n.unit), n.sign) for n in found] == [(Decimal(value), unit, sign)], whole
        assert whole[found[0].start : found[0].end] == text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2019", "year"),
        ("2019-03-01", "date"),
        ("03/01/2019", "date"),
        ("March 3, 2019", "date"),
        ("30 September 2018", "date"),
        ("Sept. 2018", "date"),
        ("Note 5", "label"),
        ("Section 404", "label"),
        ("Q4 2019", "label"),
        ("FY19", "label"),
        ("10-K", "label"),
        ("2018-19", "label"),
        ("covid-19", "label"),
        ("A4", "label"),
        ("[3]", "label"),
        ("#5", "label"),
        ("10:30", "label"),
        ("555-123-4567", "label"),
        ("5th", "ordinal"),
        ("1.234,56", "unread"),
        ("1 234", "unread"),
        ("1,23", "unread"),
        ("1/2", "unread"),
        ("⅓", "unread"),
        ("5 m", "unread"),
        ("5 mm", "unread"),
        ("5‰", "unread"),
        ("1.2.3", "unread"),
    ],
)
def test_what_is_no_quantity_is_told_apart_or_refused(text: str, kind: str) -> None:
    (found,) = read(f"See {text} here")
    assert (found.text, found.kind) == (text, kind)
    assert (found.amount is None) == (kind != "year")
    assert kind != "unread" or found.note


def test_verbs_are_no_months_and_list_marks_are_no_values() -> None:
    assert [n.kind for n in read("it may 30 times")] == ["quantity"]
    assert [(n.text, n.kind) for n in read("1. Sales rose\n(2) Costs fell by 3")] == [
        ("1.", "label"),
        ("(2)", "label"),
        ("3", "quantity"),
    ]


def test_the_first_end_of_a_range_takes_scale_and_unit_of_the_other() -> None:
    assert [n.value for n in read("5-7 %")] == [Decimal("0.05"), Decimal("0.07")]
    assert [(n.value, n.unit.name) for n in read("$3 to $5 million")] == [(3_000_000, "USD"), (5_000_000, "USD")]
    assert [n.value for n in read("2017-2019")] == [2017, 2019]
    assert [n.value for n in read("5 and 7 million")] == [5, 7_000_000]


def test_another_locale_is_asked_for_and_not_guessed() -> None:
    german = Reading(locale="de")
    assert [n.value for n in read("1.234,56 €", german)] == [Decimal("1234.56")]
    assert read("1,234.56", german)[0].kind == "unread"
    assert read("1.234", german)[0].value == 1234
    assert read("1.234")[0].value == Decimal("1.234")


def test_parentheses_can_be_asides_in_text_and_never_in_cells() -> None:
    aside = Reading(parentheses="aside")
    assert read("it rose (5.3%)", aside)[0].value == Decimal("0.053")
    assert read("it rose (5.3%)")[0].value == Decimal("-0.053")
    assert read("it rose (2019)")[0].kind == "year"
    cell = read_cell("(5.3%)", aside)
    assert cell is not None
    assert cell.value == Decimal("-0.053")


@pytest.mark.parametrize(
    ("text", "value"),
    [("$  1,452.4", "1452.4"), ("5-", "-5"), ("- 5", "-5"), ("(7)", "-7"), ("2019", "2019"), ("$ (5,946)", "-5946"),
     ("12 %", "0.12"), ("*5", "5"), ("—", None), ("", None), ("Total 5", None), ("5 6", None)],
)  # fmt: skip
def test_a_cell_is_one_number_or_none(text: str, value: str | None) -> None:
    found = read_cell(text)
    assert (found and found.value) == (None if value is None else Decimal(value))


NUMBERS = st.builds(lambda digits, places: (digits, places), st.integers(0, 10**28), st.integers(0, 6))
DRESS = [
    ("{}", "", 0),
    ("{}%", "percent", -2),
    ("{} percent", "percent", -2),
    ("{} bp", "basis_point", -4),
    ("${}", "USD", 0),
    ("EUR {}", "EUR", 0),
    ("{} million", "", 6),
    ("${} bn", "USD", 9),
    ("{} thousand dollars", "USD", 3),
    ("{}x", "multiple", 0),
]
SENTENCES = ["It was {} then.", "{}", "Sales ({} all told", "up to {}, or", "now: {}; yes", "—“{}”", "é {} 患者"]


@settings(max_examples=300, deadline=None)
@given(
    NUMBERS,
    st.sampled_from(DRESS),
    st.sampled_from(["", "-", "\u2212"]),
    st.booleans(),
    st.sampled_from(SENTENCES),
)
def test_what_is_written_is_read_whatever_stands_around(
    number: tuple[int, int], dress: tuple[str, str, int], minus: str, grouped: bool, sentence: str
) -> None:
    digits, places = number
    whole, part = divmod(digits, 10**places)
    written = f"{whole:,}" if grouped else str(whole)
    written += f".{part:0{places}d}" if places else ""
    frame, unit, power = dress
    text = minus + frame.format(written)
    if 1500 <= digits <= 2199 and frame == "{}":
        return  # a year
    around = sentence.format(text)
    found = [n for n in read(around) if n.text == text]
    value = Fraction(digits, 10**places) * Fraction(10) ** power * (-1 if minus else 1)
    assert [(n.fraction, n.unit.name) for n in found] == [(value, unit)], around


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789.,-–−()$€%kmb xX/'\u00a0\u200b½二\nMay Qq:;#[]eE+", max_size=40))
def test_offsets_cut_out_the_spelling_and_every_digit_is_in_one(text: str) -> None:
    found = read(text)
    covered: set[int] = set()
    for number in found:
        assert text[number.start : number.end] == number.text
        assert not covered & set(range(number.start, number.end))
        covered |= set(range(number.start, number.end))
        assert (number.amount is not None) == (number.kind in ("quantity", "year"))
    assert {at for at, sign in enumerate(text) if sign.isnumeric()} <= covered
    assert list(found) == sorted(found, key=lambda n: n.start)
