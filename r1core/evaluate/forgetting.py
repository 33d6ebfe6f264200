"""What a chain of tasks learnt and forgot: accuracy by time and task, and the figures that are made of it.

`R[t, j]` is the accuracy on the test rows of task j of the model that has learnt tasks 1 to t; t = 0 is the base model.
T tasks stand at times 1 to T. With `R[t, j]` as a mean over rows, each figure is a mean over tasks of means over rows,
so it gets a standard error from the differences row by row (paired, clustered as `r1core.evaluate.metrics` does it).
The test rows of different tasks are taken as independent.

Not covered: clusters (patients) that stand in the test rows of several tasks; that the best earlier time, which
forgetting looks back to, was chosen on the same rows, which makes forgetting look a little larger than it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from r1core.evaluate.metrics import Estimate, mean

Rows = NDArray[np.float64]
"""1.0 where a test row was answered rightly, else 0.0: (N,)."""
Scores = Sequence[Sequence[Rows]]
"""By time 0 to T, then by task 1 to T (at index 0 to T - 1)."""


def average_accuracy(scores: Scores) -> list[Rows]:
    """`ACC = 1/T sum_j R[T, j]`: D. Lopez-Paz and M. Ranzato, arXiv:1706.08840, section 2."""
    return list(scores[-1])


def backward_transfer(scores: Scores) -> list[Rows]:
    """`BWT = 1/(T-1) sum_{j<T} (R[T, j] - R[j, j])`: arXiv:1706.08840, section 2. Negative: forgotten."""
    return [scores[-1][j] - scores[j + 1][j] for j in range(len(scores) - 2)]


def forward_transfer(scores: Scores) -> list[Rows]:
    """`FWT = 1/(T-1) sum_{j>1} (R[j-1, j] - b_j)`: arXiv:1706.08840, section 2, with the base model as `b`."""
    return [scores[j][j] - scores[0][j] for j in range(1, len(scores) - 1)]


def forgetting(scores: Scores) -> list[Rows]:
    """`F = 1/(T-1) sum_{j<T} (max_{1<=l<T} R[l, j] - R[T, j])`: A. Chaudhry et al., arXiv:1801.10112.

    Positive where tasks are forgotten; of equal maxima the earliest counts, which changes the error alone.
    """
    last = len(scores) - 1
    best = [max(range(1, last), key=lambda time: (scores[time][j].mean(), -time)) for j in range(last - 1)]
    return [scores[best[j]][j] - scores[-1][j] for j in range(last - 1)]


FIGURES: dict[str, Callable[[Scores], list[Rows]]] = {
    "average_accuracy": average_accuracy,
    "forgetting": forgetting,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
}
"""What each task contributes to a figure, row by row. Chains of at least two tasks have all of them."""
TASKS: dict[str, Callable[[int], range]] = {
    "average_accuracy": lambda tasks: range(tasks),
    "forgetting": lambda tasks: range(tasks - 1),
    "backward_transfer": lambda tasks: range(tasks - 1),
    "forward_transfer": lambda tasks: range(1, tasks),
}
"""The tasks (at index) that contribute to it."""


def figure(name: str, scores: Scores, clusters: Sequence[Sequence[Hashable]]) -> Estimate:
    """One of `FIGURES` with its standard error.

    Parameters
    ----------
    clusters : of each task's test rows.
    """
    return _over_tasks(FIGURES[name](scores), [clusters[j] for j in TASKS[name](len(clusters))])


def difference(name: str, first: Scores, second: Scores, clusters: Sequence[Sequence[Hashable]]) -> Estimate:
    """A figure of `first` minus that of `second` on the same rows, with the paired standard error."""
    parts = [one - other for one, other in zip(FIGURES[name](first), FIGURES[name](second), strict=True)]
    return _over_tasks(parts, [clusters[j] for j in TASKS[name](len(clusters))])


def _over_tasks(parts: Sequence[Rows], clusters: Sequence[Sequence[Hashable]]) -> Estimate:
    """The mean of the tasks' means; their errors are independent."""
    each = [mean(part, own) for part, own in zip(parts, clusters, strict=True)]
    error = math.sqrt(sum(one.se**2 for one in each)) / len(each)
    total = [sum(counts) for counts in zip(*((one.n, one.clusters) for one in each), strict=True)]
    return Estimate(sum(one.value for one in each) / len(each), error, *total)
