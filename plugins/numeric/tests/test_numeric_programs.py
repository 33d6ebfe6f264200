"""Programs are executed exactly: against plain fractions, closed forms and signs around a root; units are checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, getcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from r1core_numeric.execute import Abstained, Result, execute, result_to_json
from r1core_numeric.formats import Format, rounded, write
from r1core_numeric.programs import program_from_json, program_to_json
from r1core_numeric.reader import read
from r1core_numeric.tables import read_table
from r1core_numeric.values import Number, Unit

from r1core.api import UserError


def run(text: str, op: str, *args: Any, **form: Any) -> Result | Abstained:
    """Run one operation over the numbers of a text; an int is a slot."""
    nodes = [{"slot": arg} if isinstance(arg, int) else arg for arg in args]
    return execute(program_from_json({"expression": {"op": op, "args": nodes}, "format": form}), read(text))


def result(text: str, op: str, *args: Any, **form: Any) -> Result:
    done = run(text, op, *args, **form)
    assert isinstance(done, Result), done
    return done


def number(value: Fraction, unit: str = "") -> Number:
    """A slot with any finite decimal value."""
    exact = Decimal(value.numerator) if value.denominator == 1 else None
    assert exact is not None
    return Number(str(exact), 0, 1, "quantity", exact, unit=Unit(unit))


@pytest.mark.parametrize(
    ("text", "op", "args", "written"),
    [
        ("$1,496.5 and $1,202.9", "subtract", (0, 1), "$293.6"),
        ("$1.5 million and $300 thousand", "add", (0, 1), "$1,800,000"),
        ("44.1 and 56.7", "percent_change", (0, 1), "-22.22%"),
        ("-5 and -4", "percent_change", (0, 1), "25%"),
        ("12 % and 150 bp", "subtract", (0, 1), "0.105"),
        ("12 % and 3 %", "average", (0, 1), "7.5%"),
        ("100 shares and $2.79 per share", "multiply", (0, 1), "$279"),
        ("$279 and $2.79 per share", "divide", (0, 1), "100 shares"),
        ("$1 and $3", "ratio", (0, 1), "0.33x"),
        ("$1 and $3", "divide", (0, 1), "0.33"),
        ("$5, $7, $9", "sum", (0, 1, 2), "$21"),
        ("$5, $7, $9", "maximum", (0, 1, 2), "$9"),
        ("$5, $7, $9", "count", (0, 1, 2), "3"),
        ("$(5)", "absolute", (0,), "$5"),
        ("$121, $100, 2 years", "cagr", (0, 1, 2), "10%"),
        ("10 %, $(100), $60, $60", "npv", (0, 1, 2, 3), "$4.13"),
        ("$(100), $60, $60", "irr", (0, 1, 2), "13.07%"),
    ],
)
def test_an_operation_gives_and_writes(text: str, op: str, args: tuple[int, ...], written: str) -> None:
    assert result(text, op, *args).written.text == written


@pytest.mark.parametrize(
    ("text", "op", "args", "why"),
    [
        ("$5 and 5 %", "add", (0, 1), "cannot be added"),
        ("$5 and €5", "subtract", (0, 1), "USD and EUR cannot be added"),
        ("5 and 5 %", "add", (0, 1), "cannot be added"),
        ("$5 and €5", "percent_change", (0, 1), "cannot be added"),
        ("5 years and 3 months", "add", (0, 1), "cannot be added"),
        ("5 and 0", "divide", (0, 1), "zero"),
        ("5 and 0", "percent_change", (0, 1), "zero"),
        ("5 and 0", "ratio", (0, 1), "zero"),
        ("5", "add", (0, 3), "slot 3 does not exist: 1 numbers were read"),
        ("5 on March 3, 2019", "add", (0, 1), "is no quantity but date"),
        ("5 and 1 234", "add", (0, 1), "plain space"),
        ("$5 and $7", "multiply", (0, 1), "which no unit says"),
        ("$-5, $4, 2 years", "cagr", (0, 1, 2), "above zero"),
        ("$5, $4, 0 years", "cagr", (0, 1, 2), "not above zero"),
        ("$5, $4, $2", "cagr", (0, 1, 2), "periods counts in USD"),
        ("$5, $4, $2", "npv", (0, 1, 2), "the rate counts in USD"),
        ("-100 %, $4, $2", "npv", (0, 1, 2), "not above -100 %"),
        ("$5, $4, $2", "irr", (0, 1, 2), "do not change sign"),
        ("$(100), $230, $(132)", "irr", (0, 1, 2), "2 rates of return"),
        ("$100, $(200), $150", "irr", (0, 1, 2), "no rate of return solves"),
    ],
)
def test_it_abstains_with_a_reason(text: str, op: str, args: tuple[int, ...], why: str) -> None:
    done = run(text, op, *args)
    assert isinstance(done, Abstained)
    assert why in done.reason


def test_a_number_without_unit_takes_the_other_ones_and_the_result_says_so() -> None:
    done = result("$5 and 7", "add", 0, 1)
    assert done.written.text == "$12"
    assert done.assumptions == ("a number without a unit counts as USD",)
    assert result("$5 and $7", "add", 0, 1).assumptions == ()


def test_provenance_names_slots_steps_and_declared_numbers() -> None:
    declared = {"declared": "0.5", "why": "half a year"}
    inner = {"op": "multiply", "args": [{"slot": 0}, declared]}
    slots = read("$5 in 2019")
    done = execute(program_from_json({"op": "add", "args": [inner, {"slot": 0}]}), slots)
    assert isinstance(done, Result)
    told = result_to_json(done, slots)
    assert told["text"] == "$7.5"
    assert told["slots"] == [{"slot": 0, "text": "$5", "place": "characters 0-2"}]
    assert [step["op"] for step in told["steps"]] == ["multiply", "add"]
    assert told["assumptions"] == ["0.5 pure is declared: half a year"]


def test_columns_and_rows_unfold_over_quantities_only() -> None:
    rows = [["", "2019", "2018"], ["a", "$5", "1"], ["b", "(2)", "2"], ["c", "—", "n/a"], ["Total", "$3", "3"]]
    slots = read_table(rows)
    column = execute(program_from_json({"op": "sum", "args": [{"column": 1, "rows": [1, 3]}]}), slots)
    row = execute(program_from_json({"op": "average", "args": [{"row": 2}]}), slots)
    whole = execute(program_from_json({"op": "maximum", "args": [{"column": 2}]}), slots)
    assert isinstance(column, Result)
    assert isinstance(row, Result)
    assert isinstance(whole, Result)
    assert (column.value, row.value, whole.value) == (3, 0, 3)
    nothing = execute(program_from_json({"op": "sum", "args": [{"column": 7}]}), slots)
    assert isinstance(nothing, Abstained)


# -- against fractions, with numbers of any length -----------------------------------------------------------------

LONG = st.integers(-(10**30), 10**30)


@settings(max_examples=200, deadline=None)
@given(st.lists(LONG, min_size=2, max_size=6))
def test_sums_products_and_averages_are_exact_to_the_last_digit(values: list[int]) -> None:
    slots = [number(Fraction(value)) for value in values]
    args = [{"slot": at} for at in range(len(values))]
    expected = {"sum": sum(values), "average": Fraction(sum(values), len(values)), "multiply": math.prod(values)}
    for op, value in expected.items():
        done = execute(program_from_json({"op": op, "args": args}), slots)
        assert isinstance(done, Result)
        assert done.value == value
    if values[1]:
        change = execute(program_from_json({"op": "percent_change", "args": args[:2]}), slots)
        assert isinstance(change, Result)
        assert change.value == Fraction(values[0] - values[1], values[1])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 99), st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8))
def test_npv_is_the_sum_of_discounted_flows(rate: int, flows: list[int]) -> None:
    slots = [Number("r", 0, 1, "quantity", Decimal(rate), unit=Unit("percent")), *map(number, map(Fraction, flows))]
    done = execute(program_from_json({"op": "npv", "args": [{"slot": at} for at in range(len(slots))]}), slots)
    assert isinstance(done, Result)
    assert done.value == sum(Fraction(flow) / (1 + Fraction(rate, 100)) ** t for t, flow in enumerate(flows))
    assert done.exact


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**9), min_size=1, max_size=7))
def test_irr_solves_the_flows_to_forty_digits_and_is_the_only_rate(cost: int, flows: list[int]) -> None:
    slots = [number(Fraction(-cost)), *map(number, map(Fraction, flows))]
    done = execute(program_from_json({"op": "irr", "args": [{"slot": at} for at in range(len(slots))]}), slots)
    assert isinstance(done, Result)

    def worth(rate: Fraction) -> Fraction:
        return sum((Fraction(f) / (1 + rate) ** t for t, f in enumerate(flows, 1)), Fraction(-cost))

    near = (1 + done.value) / 10**40
    assert worth(done.value - near) > 0 > worth(done.value + near) or worth(done.value) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(-90, 300), st.integers(1, 12), st.integers(1, 10**6))
def test_irr_of_one_growing_amount_is_its_rate_exactly(percent: int, years: int, cost: int) -> None:
    growth = Fraction(100 + percent, 100)
    end = cost * growth**years * 100**years
    slots = [number(Fraction(-cost * 100**years)), *[number(Fraction(0))] * (years - 1), number(end)]
    done = execute(program_from_json({"op": "irr", "args": [{"slot": at} for at in range(len(slots))]}), slots)
    assert isinstance(done, Result)
    assert (done.value, done.exact) == (growth - 1, True)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**15), st.integers(1, 10**15), st.integers(1, 40))
def test_cagr_to_the_power_of_its_periods_gives_the_growth_back(end: int, start: int, periods: int) -> None:
    slots = [number(Fraction(end)), number(Fraction(start)), number(Fraction(periods))]
    done = execute(program_from_json({"op": "cagr", "args": [{"slot": 0}, {"slot": 1}, {"slot": 2}]}), slots)
    assert isinstance(done, Result)
    back = (1 + done.value) ** periods / Fraction(end, start)
    assert abs(back - 1) < Fraction(1, 10**46)
    assert done.exact == (back == 1)


def test_a_double_rate_is_one_rate() -> None:
    # 100 - 220 x + 121 x^2 = (10 - 11 x)^2 touches zero at x = 1 / 1.1 without crossing it
    assert result("$100, $(220), $121", "irr", 0, 1, 2).value == Fraction(1, 10)


# -- writing ---------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.fractions(max_denominator=10**12), st.integers(0, 8))
def test_rounding_is_the_nearest_and_ties_go_as_the_mode_says(value: Fraction, places: int) -> None:
    step = Fraction(1, 10**places)
    up, even, down = (Fraction(rounded(value, places, mode)) for mode in ("half_up", "half_even", "down"))
    assert abs(up - value) <= step / 2
    assert abs(even - value) <= step / 2
    assert abs(down) <= abs(value) < abs(down) + step
    if abs(up - value) == step / 2:
        assert abs(up) >= abs(value)
        assert (even / step) % 2 == 0
    else:
        assert up == even


def test_rounding_does_not_depend_on_the_decimal_context() -> None:
    before = getcontext().prec
    getcontext().prec = 5
    try:
        value = Fraction(10**40 + 1, 2)
        assert write(value, Unit("USD"), Format(places=2)).text == f"${(10**40 + 1) // 2:,}.50"
        assert read("123456789012345678901.25 million")[0].value == Decimal("123456789012345678901250000")
    finally:
        getcontext().prec = before


@pytest.mark.parametrize(
    ("value", "unit", "form", "text"),
    [
        (Fraction(1, 8), "percent", {}, "12.5%"),
        (Fraction(1, 8), "pure", {"style": "percent", "places": 0}, "13%"),
        (Fraction(1, 8), "pure", {"style": "percent", "places": 0, "rounding": "half_even"}, "12%"),
        (Fraction(1, 8), "pure", {"style": "basis_point"}, "1,250 bp"),
        (Fraction(-1, 3), "pure", {"places": 4}, "-0.3333"),
        (Fraction(-1, 1000), "pure", {"places": 2}, "0.00"),
        (Fraction(-1234567), "USD", {"negative": "parentheses"}, "($1,234,567)"),
        (Fraction(-1234567), "USD", {"scale": "million", "places": 1, "negative": "parentheses"}, "($1.2) million"),
        (Fraction(1234567), "CHF", {"group": False}, "CHF 1234567"),
        (Fraction(5), "USD", {"places": 2, "trim": True}, "$5"),
        (Fraction(5), "year", {}, "5 years"),
        (Fraction(1, 4), "USD", {"style": "plain"}, "0.25"),
    ],
)
def test_formats(value: Fraction, unit: str, form: dict[str, Any], text: str) -> None:
    written = write(value, Unit(unit), Format(**form))
    assert written.text == text
    (back,) = read(written.text)
    assert back.value == written.number.value


def test_money_is_no_percentage() -> None:
    with pytest.raises(UserError, match="USD cannot be written as `percent`"):
        run("$5 and $7", "add", 0, 1, style="percent")


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**20), 10**20), st.sampled_from(["", "USD", "percent", "basis_point", "multiple"]), st.data())
def test_what_is_written_is_read_back(digits: int, unit: str, data: st.DataObject) -> None:
    negative = data.draw(st.sampled_from(["minus", "parentheses"]))
    form = Format(group=data.draw(st.booleans()), negative=negative, places=data.draw(st.sampled_from([None, 2, 4])))
    written = write(Fraction(digits, 100), Unit(unit), form)
    found = [n for n in read(written.text) if n.kind == "quantity"]
    assume(found)  # a year, or "(5)", which is a mark of a list in running text
    assert [n.fraction for n in found] == [written.number.fraction]


# -- the JSON form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_program", "told"),
    [
        ([1], "expected a JSON object"),
        ({"op": "power", "args": []}, "unknown operation 'power'"),
        ({"op": "add", "args": [{"slot": 0}]}, "`add` has 1 operands, expected at least 2"),
        ({"op": "divide", "args": [{"slot": 0}] * 3}, "`divide` has 3 operands, expected 2"),
        ({"op": "add", "args": [{"slot": 0}, 5]}, "found 5, expected an object"),
        ({"op": "add", "args": [{"slot": -1}, {"slot": 0}]}, "expected an index"),
        ({"op": "add", "args": [{"slot": 0}, {"constant": "pi"}]}, "unknown constant 'pi'"),
        ({"op": "add", "args": [{"slot": 0}, {"declared": 0.5, "why": "x"}]}, "expected a decimal as text"),
        ({"op": "add", "args": [{"slot": 0}, {"declared": "0.5"}]}, "needs its reason"),
        ({"op": "add", "args": [{"slot": 0}, {"slot": 1, "x": 2}]}, "unknown key 'x'"),
        ({"op": "divide", "args": [{"column": 1}, {"slot": 1}]}, "not a column"),
        ({"expression": {"slot": 0}, "format": {"places": 99}}, "expected 0 to 30"),
        ({"expression": {"slot": 0}, "format": {"rounding": "up"}}, "'half_up'"),
        ({"expression": {"slot": 0}, "formt": {}}, "unknown key 'formt'"),
    ],
)
def test_a_program_that_is_none_is_one_clear_line(given_program: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        program_from_json(given_program)


def _trees(leaves: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.builds(
            lambda op, args: {"op": op, "args": args},
            st.sampled_from(["add", "multiply", "average", "sum"]),
            st.lists(inner, min_size=2, max_size=4),
        ),
        max_leaves=12,
    )


@settings(max_examples=100, deadline=None)
@given(_trees([{"slot": 3}, {"constant": "one"}, {"declared": "-2.50", "unit": "USD/share", "why": "x"}]))
def test_json_comes_back_as_it_went(tree: Any) -> None:
    program = program_from_json({"name": "n", "expression": tree, "format": {"places": 2}})
    assert program_from_json(program_to_json(program)) == program
