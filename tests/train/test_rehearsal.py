"""Which rows a step with replay holds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.train.order import Shuffled
from r1core.train.rehearsal import Rehearsed


def order(new: int, earlier: list[int], size: int, each: int, total: int, seed: int) -> Rehearsed:
    return Rehearsed(Shuffled(new, size, total, seed), new, earlier, each, seed)


@settings(max_examples=60, deadline=None)
@given(
    new=st.integers(1, 30),
    earlier=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    size=st.integers(1, 8),
    each=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_shares_epochs_and_balance(new: int, earlier: list[int], size: int, each: int, seed: int) -> None:
    one = order(new, earlier, size, each, 40, seed)
    starts = [new + sum(earlier[:run]) for run in range(len(earlier))]
    per_epoch = -(-new // size)
    seen: Counter[int] = Counter()
    for step in range(one.total):
        rows = one.rows(step)
        fresh = [row for row in rows if row < new]
        assert len(rows) - len(fresh) == each
        assert fresh == Shuffled(new, size, 40, seed).rows(step), "new rows come as without replay"
        seen.update(rows)
        if (step + 1) % per_epoch == 0:
            assert {seen[row] for row in range(new)} == {(step + 1) // per_epoch}
        by_run = [sum(seen[s + i] for i in range(n)) for s, n in zip(starts, earlier, strict=True)]
        assert max(by_run) - min(by_run) <= 1, "the runs take turns"
        for start, number in zip(starts, earlier, strict=True):
            counts = [seen[start + index] for index in range(number)]
            assert max(counts) - min(counts) <= 1, "no row of a run comes again before all have come"
    assert max(seen) < new + sum(earlier)


def test_a_step_depends_on_seed_and_number_alone() -> None:
    there = [order(20, [7, 9], 6, 3, 30, 1).rows(step) for step in range(30)]
    back = order(20, [7, 9], 6, 3, 30, 1)
    assert [back.rows(step) for step in reversed(range(30))] == there[::-1]
    assert [order(20, [7, 9], 6, 3, 30, 2).rows(step) for step in range(30)] != there
