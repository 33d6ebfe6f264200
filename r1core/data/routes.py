"""Which task each token of a packed sequence belongs to, for an adapter that differs by task. Torch-free.

Rows of a task stand next to one another, so a sequence is a few runs. The runs are numbers of the host: nothing has to
be asked of a device. T = packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

KEYWORD = "task_routes"
"""The keyword by which a model with a pool of adapters is told; it never reaches the model's own forward."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens `[start, end)` of one task."""

    task: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Routes:
    """The runs of a sequence, in order and without gaps, and where the prepended task tokens stand in it."""

    runs: tuple[Run, ...]
    tokens: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """T."""
        return self.runs[-1].end

    def until(self, length: int) -> Routes:
        """With the last run as long as it takes to cover `length` tokens: padding belongs to some task, too."""
        *others, last = self.runs
        return replace(self, runs=(*others, replace(last, end=length)))

    def task_at(self, place: int) -> str:
        """The task of one token."""
        return next(run.task for run in self.runs if run.start <= place < run.end)


def routes_of(tasks: Sequence[str], lengths: Sequence[int], tokens: Sequence[int] = ()) -> Routes | None:
    """The routes of pieces that stand one behind another, with the task of each; None where they have no task."""
    if not any(tasks):
        return None
    runs: list[Run] = []
    at = 0
    for task, length in zip(tasks, lengths, strict=True):
        if runs and runs[-1].task == task:
            runs[-1] = replace(runs[-1], end=at + length)
        else:
            runs.append(Run(task, at, at + length))
        at += length
    return Routes(tuple(runs), tuple(tokens))


def told(routes: Routes | None) -> dict[str, Routes]:
    """What a model is called with besides its usual keywords."""
    return {} if routes is None else {KEYWORD: routes}
