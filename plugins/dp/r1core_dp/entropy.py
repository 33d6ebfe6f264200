"""Random numbers of the operating system's entropy: for noise and sampling, never from a run's seed.

A fresh 256-bit key of the operating system for each draw, stretched by AES in counter mode. Nothing is stored, so a
draw cannot be made again.

Not covered: that double-precision numbers are a grid (Mironov 2012, "On significance of the least significant bits for
differential privacy"); normal numbers have 53 bits here and reach 8.5 standard deviations.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Bytes = Callable[[int], bytes]
"""Gives so many random bytes; tests put their own in."""
PART = 1 << 20  # normal numbers that are made at a time


def system_bytes(number: int) -> bytes:
    """Random bytes that nobody can foresee or make again."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(os.urandom(16))).encryptor()
    return stream.update(bytes(number))


def chosen(number: int, rate: float, source: Bytes = system_bytes) -> NDArray[np.bool_]:
    """Whether each of `number` units is drawn, (number,), independently with probability `rate` (to 2^-64)."""
    if rate >= 1:
        return np.ones(number, np.bool_)
    return np.frombuffer(source(8 * number), np.uint64) < np.uint64(math.floor(rate * 2.0**64))


def normal_bits(number: int, source: Bytes = system_bytes) -> torch.Tensor:
    """The random bits that `normal` makes so many numbers of, (n, 2) int64."""
    import torch

    pairs = -(-number // 2)
    return torch.frombuffer(bytearray(source(16 * pairs)), dtype=torch.int64).view(pairs, 2)


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
