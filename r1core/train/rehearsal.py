"""Replay: which rows of earlier runs stand beside the new ones in each step, as a pure function of (seed, step).

The new rows come as without replay, in smaller steps; every step holds the same number of earlier rows. These are dealt
out to the runs of the chain in turn, so that of all rows replayed so far any two runs have given equally many, or one
of them one more. A run's rows come as one stream: all of them once, in an order drawn from (seed, run, cycle), then all
of them again in that of the next cycle. Experience replay: D. Rolnick et al., arXiv:1811.11682.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1core.train.draws import permutation
from r1core.train.order import Order


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsed:
    """An `Order` over the new rows and, behind them, those of the earlier runs.

    Parameters
    ----------
    new : the order of the new rows.
    number : how many new rows there are.
    earlier : how many rows each earlier run has, oldest run first.
    each : rows of the earlier runs in every step.
    """

    new: Order
    number: int
    earlier: Sequence[int]
    each: int
    seed: int

    @property
    def total(self) -> int:
        """Optimiser steps, as of the new rows."""
        return self.new.total

    def rows(self, step: int) -> Sequence[int]:
        """Indices of the rows of one step: the new ones, then the replayed ones."""
        places = range(step * self.each, (step + 1) * self.each)
        return [*self.new.rows(step), *map(self._replayed, places)]

    def _replayed(self, place: int) -> int:
        turn, run = divmod(place, len(self.earlier))
        cycle, index = divmod(turn, self.earlier[run])
        offset = self.number + sum(self.earlier[:run])
        drawn = permutation(self.earlier[run], self.seed, run, cycle, self.earlier[run])
        return offset + int(drawn[index])
