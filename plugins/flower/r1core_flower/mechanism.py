"""Arithmetic on vectors of weights: norms, clipping of updates, and noise from the operating system's entropy.

Not covered: that floating-point numbers are a grid (Mironov 2012, "On significance of the least significant bits for
differential privacy").
"""

# P = values of an adapter

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from r1core_flower.layout import Vector

Entropy = Callable[[int], bytes]
"""Gives so many random bytes; tests put their own in."""


def norm_of(end: Vector, start: Vector) -> float:
    """L2 norm of the update `end - start`, both (P,)."""
    return float(np.linalg.norm(end.astype(np.float64) - start))


def clipped(end: Vector, start: Vector, norm: float) -> Vector:
    """`end`, (P,), with its update scaled down to an L2 norm of at most `norm`."""
    length = norm_of(end, start)
    factor = 1.0 if length <= norm else norm / length
    return (start + factor * (end.astype(np.float64) - start)).astype(np.float32)


def noised(
    mean: Vector, start: Vector, *, arrived: int, expected: int, deviation: float, entropy: Entropy = os.urandom
) -> Vector:
    """The mean of the clipped updates that arrived, (P,), as a noisy sum over the number that was expected.

    The divisor depends on nobody, so that one client moves the sum, by at most its norm, and nothing else.

    Parameters
    ----------
    mean, start : global weights after and before the round. deviation : of the noise on the sum.
    """
    total = arrived * (mean.astype(np.float64) - start) + deviation * normal(len(start), entropy)
    return (start + total / expected).astype(np.float32)


def normal(number: int, entropy: Entropy = os.urandom) -> NDArray[np.float64]:
    """Standard normal numbers, (number,), by the transform of Box and Muller (1958), 53 bits to each uniform one."""
    pairs = -(-number // 2)
    bits = np.frombuffer(entropy(16 * pairs), dtype=np.uint64).reshape(2, pairs)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:number]
