"""Rows into bins of a token capacity, by best fit: the longest first, each where the least room would be left.

Best-fit decreasing needs at most 11/9 of the optimal number of bins plus 4 (Johnson, 1973).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Deal rows of these `lengths` (tokens) out to bins of at most `capacity` tokens; the indices of each bin.

    A row longer than the capacity gets a bin of its own. A pure function of its arguments: equal lengths keep their
    order.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        found = bisect_left(room, (length, -1))
        if found == len(room):
            bins.append([index])
            left, number = capacity - length, len(bins) - 1
        else:
            left, number = room.pop(found)
            bins[number].append(index)
            left -= length
        if left > 0:
            insort(room, (left, number))
    return bins
