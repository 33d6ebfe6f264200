"""Best fit against a naive scan over all bins, and against the bound on the number of bins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from r1core.data.bins import best_fit


def naive(lengths: list[int], capacity: int) -> list[int]:
    """Tokens in each bin, by looking at every bin for every row."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, held in enumerate(bins) if held + length <= capacity]
        if fitting:
            bins[max(fitting, key=lambda i: bins[i])] += length
        else:
            bins.append(length)
    return sorted(bins)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(10, 60))
def test_every_row_stands_once_and_where_the_least_room_is_left(lengths: list[int], capacity: int) -> None:
    bins = best_fit(lengths, capacity)
    assert sorted(i for part in bins for i in part) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in part) <= capacity or len(part) == 1 for part in bins)
    assert sorted(sum(lengths[i] for i in part) for part in bins) == naive(lengths, capacity)


def test_a_known_packing() -> None:
    assert best_fit([5, 7, 5, 2, 4, 2, 5], 10) == [[1, 3], [0, 2], [6, 4], [5]]
