"""The figures of a chain against matrices that were worked out by hand from the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from r1core.evaluate.forgetting import FIGURES, difference, figure

TENTHS = [
    [2, 1, 3],  # the base model
    [9, 2, 3],  # after task 1
    [6, 8, 5],  # after task 2
    [4, 7, 10],  # after task 3
]
"""Right answers of ten, by time and task."""
BY_HAND = {
    "average_accuracy": (0.4 + 0.7 + 1.0) / 3,
    "forgetting": ((0.9 - 0.4) + (0.8 - 0.7)) / 2,
    "backward_transfer": ((0.4 - 0.9) + (0.7 - 0.8)) / 2,
    "forward_transfer": ((0.2 - 0.1) + (0.5 - 0.3)) / 2,
}


def scores(tenths: list[list[int]]) -> list[list[np.ndarray]]:
    return [[np.array([1.0] * right + [0.0] * (10 - right)) for right in line] for line in tenths]


CLUSTERS = [list(range(10))] * 3


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_worked_out_by_hand(name: str) -> None:
    assert figure(name, scores(TENTHS), CLUSTERS).value == pytest.approx(BY_HAND[name])


def test_forgetting_looks_back_to_the_best_earlier_time() -> None:
    """Task 1 got better at time 2 before it was forgotten, so forgetting and backward transfer part."""
    chain = scores([[0, 0, 0], [5, 0, 0], [9, 6, 0], [3, 6, 6]])
    assert figure("forgetting", chain, CLUSTERS).value == pytest.approx(((0.9 - 0.3) + 0.0) / 2)
    assert figure("backward_transfer", chain, CLUSTERS).value == pytest.approx(((0.3 - 0.5) + 0.0) / 2)
    learnt_late = scores([[0, 0, 0], [5, 0, 0], [5, 6, 0], [8, 6, 6]])
    assert figure("forgetting", learnt_late, CLUSTERS).value == pytest.approx(-0.15), "negative: it got better"


def test_two_tasks() -> None:
    chain = scores([[1, 2], [9, 4], [6, 8]])
    expected = {"average_accuracy": 0.7, "forgetting": 0.3, "backward_transfer": -0.3, "forward_transfer": 0.2}
    assert {name: figure(name, chain, CLUSTERS[:2]).value for name in FIGURES} == pytest.approx(expected)


def test_the_error_of_forgetting_is_paired_and_that_of_tasks_independent() -> None:
    found = figure("forgetting", scores(TENTHS), CLUSTERS)
    lost = [np.array([0] * 4 + [1] * 5 + [0]), np.array([0] * 7 + [1] + [0] * 2)]
    errors = [float(row.std(ddof=1)) / math.sqrt(10) for row in lost]
    assert found.se == pytest.approx(math.hypot(*errors) / 2)
    assert found.n == 20


def test_clusters_count_as_one() -> None:
    whole = [["a"] * 10, *CLUSTERS[1:]]
    assert math.isnan(figure("forgetting", scores(TENTHS), whole).se)


def test_a_difference_is_paired_too() -> None:
    same = difference("forgetting", scores(TENTHS), scores(TENTHS), CLUSTERS)
    assert (same.value, same.se) == (0.0, 0.0)
    worse = [[2, 1, 3], [9, 2, 3], [6, 8, 5], [1, 5, 10]]
    gap = difference("forgetting", scores(TENTHS), scores(worse), CLUSTERS)
    assert gap.value == pytest.approx(0.3 - (0.8 + 0.3) / 2)
    lost = [np.array([0] + [1] * 3 + [0] * 6), np.array([0] * 5 + [1] * 2 + [0] * 3)]
    assert gap.se == pytest.approx(math.hypot(*(float(row.std(ddof=1)) / math.sqrt(10) for row in lost)) / 2)
