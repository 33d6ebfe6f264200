"""Selections against what they mean, written out by hand, and the choice among probabilities by brute force."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1core_numeric.execute import Abstained, execute
from r1core_numeric.programs import Apply, Constant, Slot
from r1core_numeric.selection import OPERATIONS, TWO_GROUPS, Selection, select, selection_of
from r1core_numeric.values import Number

VALUES = (120, 80, 50, 10)
SLOTS = tuple(Number(str(v), 0, 1, "quantity", Decimal(v)) for v in VALUES)


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection("difference", (0,), (1,)), Fraction(40)),
        (Selection("difference", (0, 3), (1, 2)), Fraction(0)),
        (Selection("percent_change", (0,), (1,)), Fraction(1, 2)),
        (Selection("ratio", (1,), (2,)), Fraction(8, 5)),
        (Selection("share", (2,), (0, 1)), Fraction(1, 4)),
        (Selection("sum", (0, 1, 3)), Fraction(210)),
        (Selection("average", (0, 1, 3)), Fraction(70)),
        (Selection("product", (2, 3)), Fraction(500)),
        (Selection("difference_of_averages", (0, 1), (2, 3)), Fraction(70)),
    ],
)
def test_a_selection_means_what_its_operation_says(selection: Selection, wanted: Fraction) -> None:
    done = execute(selection.program(), SLOTS)
    assert not isinstance(done, Abstained), done
    assert done.value == wanted
    assert done.slots == tuple(sorted((*selection.first, *selection.second), key=done.slots.index))
    back = selection_of(selection.program().expression, percentage=selection.operation == "share")
    assert back == selection


def test_a_share_is_written_as_a_percentage_and_a_ratio_is_not() -> None:
    for operation, text in (("share", "25"), ("ratio", "0.25")):
        done = execute(Selection(operation, (2,), (0, 1)).program(), SLOTS)
        assert not isinstance(done, Abstained)
        assert done.written.text.rstrip("%").strip().rstrip("0").rstrip(".") == text
        assert ("%" in done.written.text) == (operation == "share")


def test_what_is_deeper_is_none_of_them() -> None:
    for other in (
        Slot(0),
        Apply("subtract", (Apply("divide", (Slot(0), Slot(1))), Constant("one"))),
        Apply("divide", (Slot(0), Constant("two"))),
        Apply("subtract", (Slot(0), Slot(0))),
        Apply("cagr", (Slot(0), Slot(1), Slot(2))),
    ):
        assert selection_of(other) is None


def logs(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [math.log(w / total) for w in weights]


WEIGHTS = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


@given(st.sampled_from(OPERATIONS), st.lists(WEIGHTS, min_size=2, max_size=5))
def test_the_choice_is_the_most_probable_assignment_that_the_operation_allows(
    operation: str, weights: list[list[float]]
) -> None:
    operations = logs([1.0 if name == operation else 0.01 for name in OPERATIONS])
    roles = [logs(one) for one in weights]
    found = select(operations, roles)
    assert found is not None
    two = operation in TWO_GROUPS
    ways = [
        way
        for way in itertools.product(range(3 if two else 2), repeat=len(roles))
        if (1 in way and 2 in way if two else way.count(1) >= 2)
    ]
    best = max(sum(one[role] for one, role in zip(roles, way, strict=True)) for way in ways)
    assert found.operation == operation
    assert found.roles(len(roles)) in ways
    assert math.log(found.probability) == pytest.approx(best + max(operations))


def test_too_few_numbers_are_no_selection() -> None:
    operations = logs([1.0 if name == "difference" else 0.01 for name in OPERATIONS])
    assert select(operations, [logs([1, 1, 1])]) is None
    assert select(operations, []) is None
