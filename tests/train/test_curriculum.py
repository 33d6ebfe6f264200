"""The order of rows under a curriculum, against a plain simulation that walks from step to step and counts."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1core.api import UserError
from r1core.recipe.curriculum import Curriculum, Stage
from r1core.recipe.training import Train
from r1core.train.curriculum import Staged, classes_of, described, unreached
from r1core.train.order import Shuffled, order_of

ISSUE = [(5, 1.0), (15, 0.7), (None, 0.0)]


def curriculum(*stages: tuple[int | None, float], unit: Any = "epoch", threshold: float = 0.5) -> Curriculum:
    tables = [Stage(until=until, simple=simple) for until, simple in stages]
    return Curriculum(difficulty="column", column="x", unit=unit, threshold=threshold, stages=tables)


@st.composite
def orders(draw: st.DrawFn) -> tuple[Staged, Curriculum, int]:
    """An order over a few rows, its recipe, and the number of rows."""
    difficulty = draw(st.lists(st.integers(0, 9), min_size=2, max_size=30).filter(lambda d: len(set(d)) > 1))
    ends = sorted(draw(st.sets(st.integers(1, 9), max_size=3)))
    shares = draw(st.lists(st.integers(0, 20), min_size=len(ends) + 1, max_size=len(ends) + 1))
    stages = [(end, share / 20) for end, share in zip([*ends, None], shares, strict=True)]
    config = curriculum(*stages, unit=draw(st.sampled_from(["epoch", "step"])), threshold=draw(st.floats(0.1, 0.9)))
    train = Train(batch_size=draw(st.integers(1, 8)), epochs=draw(st.integers(1, 12)))
    order = order_of(train, len(difficulty), draw(st.integers(0, 99)), config, difficulty)
    assert isinstance(order, Staged)
    return order, config, len(difficulty)


@given(orders(), st.randoms(use_true_random=False))
def test_rows_are_a_pure_function_of_the_step(made: tuple[Staged, Curriculum, int], rng: random.Random) -> None:
    order, _, _ = made
    steps = list(range(order.total))
    forward = [order.rows(step) for step in steps]
    rng.shuffle(steps)
    torch.manual_seed(rng.randrange(99))
    assert all(order.rows(step) == forward[step] for step in steps)


@given(orders())
def test_steps_and_epochs_have_the_sizes_that_they_have_without(made: tuple[Staged, Curriculum, int]) -> None:
    order, _, number = made
    plain = Shuffled(number, order.batch_size, order.total, order.seed)
    sizes = [[len(one.rows(step)) for step in range(order.total)] for one in (order, plain)]
    assert sizes[0] == sizes[1]


@given(orders())
def test_shares_hold_to_within_one_row(made: tuple[Staged, Curriculum, int]) -> None:
    """In every stretch of steps inside one stage: a step, an epoch, the whole stage."""
    order, config, number = made
    per_epoch = math.ceil(number / order.batch_size)
    unit = per_epoch if config.unit == "epoch" else 1
    simple = set(order.classes.simple)
    first = 0
    for index, stage in enumerate(config.stages):
        last = order.total if stage.until is None else min(order.total, stage.until * unit)
        assert {order.stage(step) for step in range(first, last)} <= {index + 1}
        share = Fraction(round(stage.simple * 20), 20)
        steps = [order.rows(step) for step in range(first, last)]
        epochs = [steps[start : start + per_epoch] for start in range(0, len(steps), per_epoch)]
        for stretch in [*([step] for step in steps), *epochs, steps]:
            rows = [row for step in stretch for row in step]
            assert abs(sum(row in simple for row in rows) - share * len(rows)) < 1 or not rows
        first = max(first, last)


@given(orders())
def test_rows_of_a_class_come_equally_often(made: tuple[Staged, Curriculum, int]) -> None:
    order, _, _ = made
    counts: Counter[int] = Counter()
    for step in range(order.total):
        counts.update(order.rows(step))
        for members in (order.classes.simple, order.classes.complex):
            seen = [counts[row] for row in members]
            assert max(seen) - min(seen) <= 1


@given(orders())
def test_a_class_is_used_up_before_it_comes_again(made: tuple[Staged, Curriculum, int]) -> None:
    order, _, _ = made
    history = [row for step in range(order.total) for row in order.rows(step)]
    for members in (order.classes.simple, order.classes.complex):
        own = [row for row in history if row in set(members)]
        for start in range(0, len(own) - len(members) + 1, len(members)):
            assert sorted(own[start : start + len(members)]) == sorted(members)


def test_the_stages_of_the_issue() -> None:
    order = order_of(Train(batch_size=10, epochs=20), 100, 1, curriculum(*ISSUE), list(range(100)))
    assert isinstance(order, Staged)
    simple = [
        sum(row < 50 for step in range(10 * epoch, 10 * epoch + 10) for row in order.rows(step)) for epoch in range(20)
    ]
    assert simple == [100] * 5 + [70] * 10 + [0] * 5
    assert {sum(row < 50 for row in order.rows(step)) for step in range(50, 150)} == {7}
    assert described(order) == [
        "curriculum: 50 of 100 rows are simple (difficulty up to 49)",
        "  steps 1 to 50: 100 % simple",
        "  steps 51 to 150: 70 % simple",
        "  steps 151 to 200: 0 % simple",
    ]
    short = order_of(Train(batch_size=10, epochs=6), 100, 1, curriculum(*ISSUE), list(range(100)))
    assert isinstance(short, Staged)
    assert described(short)[1:] == ["  steps 1 to 50: 100 % simple", "  steps 51 to 60: 70 % simple"]


def test_seed_class_and_cycle_each_change_the_order() -> None:
    def first(seed: int, start: int) -> list[int]:
        order = order_of(Train(batch_size=50, epochs=9), 100, seed, curriculum((None, 0.5)), list(range(100)))
        return [row for step in (start, start + 1) for row in order.rows(step)]

    simple, others = ([row for row in first(0, 0) if (row < 50) == easy] for easy in (True, False))
    assert [row + 50 for row in simple] != others
    assert first(0, 0) != first(1, 0)
    assert first(0, 0) != first(0, 2)
    assert sorted(first(0, 0)) == sorted(first(0, 2)) == list(range(100))


@pytest.mark.parametrize(
    ("difficulty", "threshold", "simple", "cut"),
    [
        ([3, 1, 2, 4], 0.5, [1, 2], 2),
        ([3, 1, 2, 4], 0.3, [1], 1),
        ([1, 1, 1, 2, 2], 0.5, [0, 1, 2], 1),  # rows of one difficulty are not parted
        ([1, 2, 2, 2], 0.5, [0], 1),  # 25 % is nearer to a half than 100 %, which would leave no complex row
        ([1, 2, 2, 3], 0.5, [0], 1),  # 25 % and 75 % are equally near: the lower
        ([1, 2, 3], 0.999, [0, 1], 2),
        ([-1.5, 1e9], 0.001, [0], -1.5),
    ],
)
def test_the_cut_falls_between_different_difficulties(
    difficulty: list[float], threshold: float, simple: list[int], cut: float
) -> None:
    classes = classes_of(difficulty, threshold)
    assert classes.simple == simple
    assert sorted([*classes.simple, *classes.complex]) == list(range(len(difficulty)))
    assert classes.cut == cut


@pytest.mark.parametrize("difficulty", [[], [2.0], [3.0, 3.0, 3.0]])
def test_equally_difficult_rows_are_refused(difficulty: list[float]) -> None:
    with pytest.raises(UserError, match=f"all {len(difficulty)} training rows are equally difficult"):
        classes_of(difficulty, 0.5)


@pytest.mark.parametrize(
    ("unit", "train", "rows", "said"),
    [
        ("epoch", {"epochs": 16}, None, ""),
        ("epoch", {"epochs": 15}, None, "the training ends in stage 2 of 3, after 15 epochs"),
        ("epoch", {"epochs": 5}, None, "the training ends in stage 1 of 3, after 5 epochs"),
        ("epoch", {"steps": 40}, None, ""),  # how many epochs that is, the rows tell
        ("epoch", {"steps": 40}, 16, "the training ends in stage 2 of 3, after 10 epochs"),
        ("epoch", {"steps": 61}, 16, ""),
        ("step", {"steps": 16}, None, ""),
        ("step", {"steps": 12}, None, "the training ends in stage 2 of 3, after 12 steps"),
        ("step", {"epochs": 3}, None, ""),
        ("step", {"epochs": 3}, 16, "the training ends in stage 2 of 3, after 12 steps"),
        ("step", {"epochs": 4}, 16, ""),
    ],
)
def test_stages_that_a_run_never_gets_to(unit: str, train: dict[str, int], rows: int | None, said: str) -> None:
    assert unreached(curriculum(*ISSUE, unit=unit), Train(batch_size=4, **train), rows) == said  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_a_resumed_curriculum_ends_on_the_same_bits(tiny: ModuleType, stop: int) -> None:
    """Stopped inside each of the three stages, on the tiny model."""
    config, saved = curriculum((1, 1.0), (2, 0.7), (None, 0.0)), dict[int, Any]()

    def training(save: Any = lambda step, groups, state: None) -> Any:
        run = tiny.trainer(save, epochs=3, checkpoint_every=1)
        run.order = order_of(run.config, 11, 7, config, [7.0, *range(10)])
        return run

    class Killed(Exception):
        pass

    def save(step: int, groups: Any, state: dict[str, Any]) -> None:
        saved[step] = (groups, state)
        if step == stop:
            raise Killed

    whole = training()
    whole.run()
    with pytest.raises(Killed):
        training(save).run()
    torch.manual_seed(4)
    resumed = training()
    resumed.resume(*saved[stop])
    resumed.run()
    expected, found = tiny.flat(whole.tensors()), tiny.flat(resumed.tensors())
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    plain = tiny.trainer(epochs=3)
    plain.run()
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in tiny.flat(plain.tensors()).items())
