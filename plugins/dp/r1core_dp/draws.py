"""Whether units were drawn as Poisson sampling draws them: each in each step by itself, all with the same chance."""

# N = units, T = steps

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEW = 10.0  # variance of a step's size below which the test of its spread, an approximation, is left out


@dataclass(frozen=True, slots=True)
class Drawn:
    """How probable what was seen is under Poisson sampling, at most; `None` where it could not be tested.

    `most`, `least`: that any unit is drawn so often, or so seldom. `all`: that all together are. `spread`: that the
    sizes of the steps differ so much, or so little.
    """

    most: float
    least: float
    all: float
    spread: float | None

    @property
    def lowest(self) -> float:
        """The lowest of them, times how many there are (Bonferroni)."""
        known = [p for p in (self.most, self.least, self.all, self.spread) if p is not None]
        return min(1.0, min(known) * len(known))


def judged(counts: NDArray[np.int64], sizes: Sequence[int], rate: float) -> Drawn:
    """Compare with the binomial distributions that Poisson sampling has.

    Parameters
    ----------
    counts : (N,), in how many steps each unit was. sizes : (T,), units of each step. rate : sampling rate q.
    """
    from scipy.stats import binom, chi2

    units, steps = len(counts), len(sizes)
    total = int(counts.sum())
    spread = None
    variance = units * rate * (1 - rate)
    if variance >= FEW and steps > 1:
        found = float(np.sum((np.asarray(sizes) - units * rate) ** 2) / variance)
        spread = 2 * min(float(chi2.sf(found, steps)), float(chi2.cdf(found, steps)))
    return Drawn(
        most=min(1.0, units * float(binom.sf(counts.max() - 1, steps, rate))),
        least=min(1.0, units * float(binom.cdf(counts.min(), steps, rate))),
        all=min(
            1.0, 2 * min(float(binom.sf(total - 1, units * steps, rate)), float(binom.cdf(total, units * steps, rate)))
        ),
        spread=spread,
    )
