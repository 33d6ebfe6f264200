"""Random numbers of the operating system: for noise and sampling, never from a run's seed.

Every bit comes from the system's own generator, in the moment in which it is needed; nothing is stored, so a draw
cannot be made again.

Not covered: that double-precision numbers are a grid (Mironov 2012, "On significance of the least significant bits for
differential privacy"); normal numbers have 53 bits here and reach 8.5 standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Fill = Callable[[memoryview], None]
"""Fills a buffer with random bytes; tests put their own in."""
PART = 1 << 20  # normal numbers that are made at a time
_DEVICE = Path("/dev/urandom")  # read into a buffer that is there, other threads running on meanwhile


def system(buffer: memoryview) -> None:
    """Fill with random bytes that nobody can foresee or make again."""
    with _DEVICE.open("rb", buffering=0) as source:
        while len(buffer):
            buffer = buffer[source.readinto(buffer) or 0 :]


def chosen(number: int, rate: float, fill: Fill = system) -> NDArray[np.bool_]:
    """Whether each of `number` units is drawn, (number,), independently with probability `rate` (to 2^-64)."""
    if rate >= 1:
        return np.ones(number, np.bool_)
    bits = np.empty(number, np.uint64)
    fill(memoryview(bits).cast("B"))
    return bits < np.uint64(math.floor(rate * 2.0**64))


def normal_bits(number: int, fill: Fill = system, *, pinned: bool = False) -> torch.Tensor:
    """The random bits that `normal` makes so many numbers of, (n, 2) int64; `pinned` for copies to a GPU."""
    import torch

    bits = torch.empty(-(-number // 2), 2, dtype=torch.int64, pin_memory=pinned)
    fill(memoryview(bits.view(-1).numpy()).cast("B"))
    return bits


def normal(number: int, bits: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Standard normal numbers, (number,) float32, by the transform of Box and Muller (1958), each pair of 128 bits."""
    import torch

    out = torch.empty(2 * len(bits), dtype=torch.float32, device=device)
    for first in range(0, len(bits), PART):
        some = bits[first : first + PART].to(out.device, non_blocking=True)
        uniform = ((some >> 11) & ((1 << 53) - 1)).double().mul_(2.0**-53)  # in [0, 1)
        radius = (1 - uniform[:, 0]).log_().mul_(-2).sqrt_()
        angle = uniform[:, 1] * (2 * math.pi)
        part = out[2 * first : 2 * (first + len(some))]
        part[: len(some)], part[len(some) :] = radius * angle.cos(), radius * angle.sin()
    return out[:number]
