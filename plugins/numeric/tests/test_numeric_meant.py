"""Selections that derivations mean: amounts that stand twice, signs in parentheses, and what is not covered."""

from __future__ import annotations

from fractions import Fraction

import pytest
from r1core_numeric.derivations import read_derivation
from r1core_numeric.execute import Result, attempt
from r1core_numeric.meant import selection_meant
from r1core_numeric.selection import Selection
from r1core_numeric.tables import read_table

ROWS = [
    ["", "2019", "2018", "2017"],
    ["Sales", "120", "100", "80"],
    ["Costs", "(71)", "(114)", "80"],
    ["Other", "80", "120", "7"],
    ["Tax", "$30", "12", "120"],
]
SLOTS = read_table(ROWS)


def where(chosen: Selection | None) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]] | None:
    """Operation, and row and column headers of both groups."""
    if chosen is None:
        return None
    cells = [[SLOTS[at].cell for at in group] for group in (chosen.first, chosen.second)]
    first, second = ([(c.row_header[0], c.column_header[0]) for c in group if c] for group in cells)
    return chosen.operation, first, second


def meant(text: str, gold: str, *, percentage: bool = False) -> Selection | None:
    def right(chosen: Selection) -> bool:
        done = attempt(chosen.program(), SLOTS)
        return isinstance(done, Result) and done.value == Fraction(gold)

    return selection_meant(read_derivation(text), SLOTS, right, percentage=percentage)


@pytest.mark.parametrize(
    ("text", "gold", "operation", "first", "second"),
    [
        ("120-100", "20", "difference", [("Sales", "2019")], [("Sales", "2018")]),
        ("(100-80)/80", "1/4", "percent_change", [("Sales", "2018")], [("Sales", "2017")]),
        ("114-71", "43", "difference", [("Costs", "2019")], [("Costs", "2018")]),
        ("-71-(-114)", "43", "difference", [("Costs", "2019")], [("Costs", "2018")]),
        ("(120+100+80)/3", "100", "average", [("Sales", "2019"), ("Sales", "2018"), ("Sales", "2017")], []),
        ("80+120", "200", "sum", [("Other", "2019"), ("Other", "2018")], []),
        ("7/80", "7/80", "ratio", [("Other", "2017")], [("Costs", "2017")]),
    ],
)
def test_the_closest_operands_that_give_the_result(
    text: str, gold: str, operation: str, first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    assert where(meant(text, gold)) == (operation, first, second)


def test_a_share_is_told_from_a_ratio_and_takes_money_over_a_number_without_a_unit() -> None:
    assert where(meant("30/120", "1/4", percentage=True)) == ("share", [("Tax", "2019")], [("Tax", "2017")])


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("120-99", "21"),  # an amount that is not there
        ("120-100", "7"),  # another result
        ("(120-100)*80", "1600"),  # two operations
        ("30-(-7)", "37"),  # a sign that the table does not bear out
        ("7+7", "14"),  # one number twice
    ],
)
def test_what_cannot_be_pointed_at_is_none(text: str, gold: str) -> None:
    assert meant(text, gold) is None
