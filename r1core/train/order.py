"""Which rows each optimiser step sees: a pure function of (seed, step), so that a resumed run goes on exactly.

`total` counts optimiser steps; indices are those of the training rows as they were prepared.
Under a curriculum the rows come as `r1core.train.curriculum` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r1core.recipe.curriculum import Curriculum
from r1core.recipe.training import Train
from r1core.train.curriculum import staged
from r1core.train.draws import permutation

OFF = Curriculum()
"""No curriculum: every epoch holds each row once."""


class Order(Protocol):
    """The rows of every step."""

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training."""
        ...

    def rows(self, step: int) -> Sequence[int]:
        """Indices of the rows of one step (0-based), at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Every epoch holds each row once, in an order drawn from (seed, epoch); its last batch may be short."""

    number: int
    batch_size: int
    total: int
    seed: int

    def rows(self, step: int) -> Sequence[int]:
        """Indices of the rows of one step."""
        epoch, index = divmod(step, self.per_epoch)
        order = permutation(self.number, self.seed, epoch)
        return order[index * self.batch_size : (index + 1) * self.batch_size].tolist()

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return math.ceil(self.number / self.batch_size)


def order_of(
    config: Train, number: int, seed: int, curriculum: Curriculum = OFF, difficulty: Sequence[float] = ()
) -> Order:
    """The order that the recipe asks for, over `number` rows.

    Parameters
    ----------
    difficulty : of each row, where there is a curriculum; larger is harder.

    Raises
    ------
    UserError : under a curriculum, when every row is equally difficult.
    """
    total = config.steps or config.epochs * math.ceil(number / config.batch_size)
    if curriculum.difficulty:
        return staged(curriculum, difficulty, batch_size=config.batch_size, total=total, seed=seed)
    return Shuffled(number, config.batch_size, total, seed)
