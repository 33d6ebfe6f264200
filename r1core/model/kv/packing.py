"""Small integers into bytes and back, exactly: 4, 5 or 6 bits a number and not a bit more.

A number is split into planes, 4 bits and what is above them. A plane of w bits puts 8/w numbers into a byte that lie
n w/8 apart, not beside one another: each part is then read back as one run.

n = numbers in a row, a multiple of 8.
"""

from __future__ import annotations

import torch

PLANES = {4: (4,), 5: (4, 1), 6: (4, 2)}
"""Widths in bits of the planes that a number of so many bits is split into, the lowest first."""
BITS = tuple(PLANES)
"""Widths that can be packed."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Bytes `(..., n * bits / 8)` of numbers `(..., n)` below `2**bits`, both uint8."""
    planes, shift = [], 0
    for width in PLANES[bits]:
        parts = ((codes >> shift) & (2**width - 1)).unflatten(-1, (8 // width, -1))
        plane = parts[..., 0, :].clone()
        for place in range(1, 8 // width):
            plane |= parts[..., place, :] << (place * width)
        planes.append(plane)
        shift += width
    return torch.cat(planes, -1)


def unpack(packed: torch.Tensor, bits: int, out: torch.Tensor, spare: torch.Tensor | None = None) -> torch.Tensor:
    """Write the numbers of `packed` `(..., n * bits / 8)` into `out` `(..., n)`, of any dtype, and return it.

    `spare` : memory of the same shape, uint8, to work in.
    """
    codes = torch.empty(out.shape, dtype=torch.uint8, device=out.device) if spare is None else spare
    half = out.shape[-1] // 2
    low = packed[..., :half]
    torch.bitwise_and(low, 15, out=codes[..., :half])
    torch.bitwise_right_shift(low, 4, out=codes[..., half:])
    if bits > 4:
        width, above = PLANES[bits][1], packed[..., half:]
        parts = codes.unflatten(-1, (8 // width, -1))
        for place in range(8 // width):
            parts[..., place, :] |= ((above >> (place * width)) & (2**width - 1)) << 4
    return out.copy_(codes)
