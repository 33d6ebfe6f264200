"""Simple rows first: which rows each step sees under a curriculum, as a pure function of (seed, step).

A *stage* is a stretch of steps with one share of simple rows. Steps and epochs are what they are without a curriculum:
an epoch shows as many rows as there are, in `ceil(rows / batch_size)` steps of which the last may be short; only which
rows it shows differs. Of the first i rows of a stage, `round(share * i)` are simple (halves up, in exact arithmetic),
so every step, every epoch and every stage holds its share to within one row.

The rows of a class (simple or complex) come as one stream: all of them once, in an order drawn from (seed, class,
cycle), then all of them again in that of the next cycle. At any step, two rows of one class have been seen equally
often, or one of them once more. A class smaller than what a step takes of it, or the end of a cycle, may put a row into
one step twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from r1core.api import UserError
from r1core.recipe.curriculum import Curriculum
from r1core.recipe.training import Train
from r1core.train.draws import permutation

SIMPLE, COMPLEX = 0, 1
"""The classes, as the streams' generators know them."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Indices of the rows that are simple and of those that are complex; `cut` is the largest simple difficulty."""

    simple: Sequence[int]
    complex: Sequence[int]
    cut: float


def classes_of(difficulty: Sequence[float], threshold: float) -> Classes:
    """Cut the rows in two between different difficulties, where the share of simple rows is nearest to `threshold`.

    Rows of one difficulty are never parted; of two equally near cuts the lower is taken.

    Raises
    ------
    UserError : when every row is equally difficult, so that one class would be empty.
    """
    values, counts = np.unique(np.asarray(difficulty, float), return_counts=True)
    if len(values) < 2:
        raise UserError(
            f"curriculum.difficulty: all {len(difficulty)} training rows are equally difficult, "
            "so none is simpler than another",
            fix='take another measure, or set curriculum.difficulty = ""',
        )
    shares = np.cumsum(counts)[:-1] / len(difficulty)
    cut = float(values[int(np.argmin(np.abs(shares - threshold)))])
    simple = [index for index, value in enumerate(difficulty) if value <= cut]
    return Classes(simple, [index for index, value in enumerate(difficulty) if value > cut], cut)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage in steps: from `start` on, `share` of the rows are simple."""

    start: int
    share: Fraction


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """An `Order` by the phases of a curriculum; see the module."""

    classes: Classes
    phases: Sequence[Phase]
    batch_size: int
    total: int
    seed: int

    def rows(self, step: int) -> Sequence[int]:
        """Indices of the rows of one step (0-based), the simple ones first."""
        (simple, others), (simple_end, others_end) = self._drawn(step), self._drawn(step + 1)
        return [
            *self._stream(SIMPLE, self.classes.simple, simple, simple_end),
            *self._stream(COMPLEX, self.classes.complex, others, others_end),
        ]

    def stage(self, step: int) -> int:
        """Number of the stage, from 1, that a step (0-based) belongs to."""
        return sum(phase.start <= step for phase in self.phases)

    def _drawn(self, step: int) -> tuple[int, int]:
        """Rows drawn of each class before a step."""
        simple = 0
        ends = [phase.start for phase in self.phases[1:]]
        for phase, end in zip(self.phases, [*ends, step], strict=True):
            if phase.start < step:
                seen = self._shown(min(end, step)) - self._shown(phase.start)
                simple += math.floor(phase.share * seen + Fraction(1, 2))
        return simple, self._shown(step) - simple

    def _shown(self, step: int) -> int:
        """Rows shown before a step."""
        number = len(self.classes.simple) + len(self.classes.complex)
        epochs, index = divmod(step, math.ceil(number / self.batch_size))
        return epochs * number + index * self.batch_size

    def _stream(self, kind: int, members: Sequence[int], start: int, end: int) -> list[int]:
        """Places `start` to `end` of a class's stream."""
        places = (divmod(place, len(members)) for place in range(start, end))
        return [members[int(permutation(len(members), self.seed, kind, cycle)[index])] for cycle, index in places]


def staged(curriculum: Curriculum, difficulty: Sequence[float], *, batch_size: int, total: int, seed: int) -> Staged:
    """The order of a curriculum over rows of these difficulties.

    Raises
    ------
    UserError : when every row is equally difficult.
    """
    classes = classes_of(difficulty, curriculum.threshold)
    unit = 1 if curriculum.unit == "step" else math.ceil(len(difficulty) / batch_size)
    starts = [0, *(stage.until * unit for stage in curriculum.stages if stage.until is not None)]
    shares = [Fraction(str(stage.simple)) for stage in curriculum.stages]  # 0.7 is 7/10
    phases = [Phase(start, share) for start, share in zip(starts, shares, strict=True)]
    return Staged(classes, phases, batch_size, total, seed)


def unreached(curriculum: Curriculum, train: Train, rows: int | None = None) -> str:
    """What a run never gets to, in words; "" where it gets to every stage, or where that cannot be told.

    Parameters
    ----------
    rows : how many training rows there are, None where that is not known.
    """
    per_epoch = None if rows is None else math.ceil(rows / train.batch_size)
    if curriculum.unit == "epoch":
        length: float | None = train.epochs if not train.steps else train.steps / per_epoch if per_epoch else None
    else:
        length = train.steps or (train.epochs * per_epoch if per_epoch else None)
    ends = [stage.until for stage in curriculum.stages if stage.until is not None]
    if length is None or not ends or length > ends[-1]:
        return ""
    last = sum(end < length for end in ends) + 1
    return f"the training ends in stage {last} of {len(ends) + 1}, after {length:g} {curriculum.unit}s"


def described(order: Staged) -> list[str]:
    """What the order does, in lines: the classes, and the stages that the run gets to."""
    simple, others = len(order.classes.simple), len(order.classes.complex)
    lines = [f"curriculum: {simple} of {simple + others} rows are simple (difficulty up to {order.classes.cut:g})"]
    bounds = [*(phase.start for phase in order.phases), order.total]
    for phase, (start, end) in zip(order.phases, pairwise(bounds), strict=True):
        if start < order.total:
            lines.append(f"  steps {start + 1} to {min(end, order.total)}: {100 * float(phase.share):g} % simple")
    return lines
