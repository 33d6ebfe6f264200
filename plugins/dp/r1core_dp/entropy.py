"""Random numbers of the operating system: for noise and sampling, never from a run's seed.

Every bit comes from the system's own generator, in the moment in which it is needed; nothing is stored, so a draw
cannot be made again.

Not covered: that floating-point numbers are a grid (Mironov 2012, "On significance of the least significant bits for
differential privacy"): that of float32 here. Normal numbers reach 7.5 standard deviations, beyond which lies less than
1e-13.
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
    fill(memoryview(bits.data).cast("B"))
    return bits < np.uint64(math.floor(rate * 2.0**64))


def normal_bits(number: int, *, pinned: bool = False) -> torch.Tensor:
    """Room for the random bits that `normal` makes so many numbers of, (n,) int64; `pinned` for copies to a GPU."""
    import torch

    return torch.empty(-(-number // 2), dtype=torch.int64, pin_memory=pinned)


def buffer_of(bits: torch.Tensor) -> memoryview:
    """The bytes of a tensor, to be filled."""
    return memoryview(bits.numpy().data).cast("B")


def normal(number: int, bits: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Standard normal numbers, (number,) float32, by the transform of Box and Muller (1958).

    A pair takes 64 bits: 40 for its radius, 24 (as many as a float32 has) for its angle.
    """
    import torch

    out = torch.empty(2 * len(bits), dtype=torch.float32, device=device)
    for first in range(0, len(bits), PART):
        some = bits[first : first + PART].to(out.device, non_blocking=True)
        uniform = (some >> 24 & (1 << 40) - 1).double().add_(0.5).mul_(2.0**-40)  # in (0, 1)
        radius = uniform.log_().mul_(-2).sqrt_()
        angle = (some & (1 << 24) - 1).double().add_(0.5).mul_(2 * math.pi * 2.0**-24)
        part = out[2 * first : 2 * (first + len(some))]
        part[: len(some)], part[len(some) :] = radius * angle.cos(), radius * angle.sin()
    return out[:number]
