"""What epsilon a mechanism has at least, by how many guesses on its canaries were right.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv:2305.08846), theorem 5.2: of an
(epsilon, delta)-private mechanism that each of m canaries entered by a fair coin, r guesses on who did are right v
times with no more probability than a binomial of r trials at e^epsilon / (1 + e^epsilon), and a part for delta.
"""

# m = canaries, r = guesses, v = right guesses

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
TOLERANCE = 1e-3  # of the epsilon that is looked for
MOST = 30.0


@dataclass(frozen=True, slots=True)
class Bound:
    """`epsilon`: at least, at `CONFIDENCE`. `guesses`, `right`: by which it was found."""

    epsilon: float
    guesses: int
    right: int


def chance(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """At most how probable so many right guesses are, where the mechanism is (epsilon, delta)-private; at most 1."""
    from scipy.stats import binom

    rate = 1 / (1 + math.exp(-epsilon))
    plain = float(binom.sf(right - 1, guesses, rate))
    if not right or not delta:
        return plain
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, rate))  # P[v > W >= v - i], i = 1 to v
    most = float(np.max(below / np.arange(1, right + 1)))
    return min(1.0, plain + 2 * canaries * delta * most)


def at_least(canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses refute at this confidence; 0 where they refute none."""
    low, high = 0.0, MOST
    if chance(canaries, guesses, right, low, delta) > 1 - confidence:
        return 0.0
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        refuted = chance(canaries, guesses, right, middle, delta) <= 1 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


def bound(scores: Sequence[float] | NDArray[np.float64], entered: Sequence[bool], delta: float) -> Bound:
    """The best of a few ways to guess, each at so much more confidence that all hold together.

    The canaries of the highest scores are guessed to have entered, and in half of the ways as many of the lowest not to
    have.

    Parameters
    ----------
    scores : (m,), higher for a canary that seems to have entered. entered : (m,), whether it has.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    truth = np.asarray(entered, dtype=bool)[order]
    canaries = len(truth)
    ways = [(canaries // 16, 0), (canaries // 8, 0), (canaries // 4, 0)]
    ways += [(canaries // 8, canaries // 8), (canaries // 4, canaries // 4), (canaries // 2, canaries // 2)]
    confidence = 1 - (1 - CONFIDENCE) / len(ways)
    found = []
    for high, low in ways:
        right = int(truth[:high].sum() + (~truth[canaries - low :]).sum())
        found.append(Bound(at_least(canaries, high + low, right, delta, confidence), high + low, right))
    return max(found, key=lambda one: one.epsilon)
