"""Triton kernels for the experts of a few tokens: each expert's weights are read where they lie, nothing is gathered.

The narrow inner half of a low-rank update is computed by every program anew: it is small, and lies in the cache.

N = tokens, K = experts of a token, E = experts, H = model width, I = expert width, R = rank, 0 without an update.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

from r1core.model.r1.launch import Kernel, padded, parts
from r1core.model.r1.routed import LowRank

COLUMNS, DEEP = 16, 256
"""Outputs of a program, and inputs that it takes at a time."""


@triton.jit
def _narrow(half, slot, x, deep, R: tl.constexpr, RANK: tl.constexpr, WIDE: tl.constexpr):
    """Products of some inputs with A of one slot, (RANK,)."""
    rank = tl.arange(0, RANK)
    inside = (rank < R)[:, None] & (deep < WIDE)[None, :]
    a = tl.load(half + slot * R * WIDE + rank[:, None] * WIDE + deep[None, :], inside, 0.0)
    return tl.sum(a.to(tl.float32) * x[None, :], 1)


@triton.jit
def _wide(half, slot, column, last, low, R: tl.constexpr, RANK: tl.constexpr, WIDE: tl.constexpr):
    """Some outputs of B of one slot, columns below `last`."""
    rank = tl.arange(0, RANK)
    inside = (column < last)[:, None] & (rank < R)[None, :]
    b = tl.load(half + slot * R * WIDE + column[:, None] * R + rank[None, :], inside, 0.0)
    return tl.sum(b.to(tl.float32) * low[None, :], 1)


@triton.jit
def _up(
    hidden, chosen, slots, weights, gate_up, a, b, active,
    K: tl.constexpr, E: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, R: tl.constexpr, RANK: tl.constexpr,
    COLUMNS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up * weight of one row of (N K) rows, some columns."""
    row = tl.program_id(0)
    expert = tl.load(chosen + row).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    gate = tl.zeros((COLUMNS,), tl.float32)
    up = tl.zeros((COLUMNS,), tl.float32)
    low = tl.zeros((RANK,), tl.float32)
    if expert < E:
        slot = tl.load(slots + row).to(tl.int64)
        base = gate_up + expert * 2 * WIDE * H
        for start in range(0, H, DEEP):
            deep = start + tl.arange(0, DEEP)
            inside = (column < WIDE)[:, None] & (deep < H)[None, :]
            x = tl.load(hidden + (row // K) * H + deep, deep < H, 0.0).to(tl.float32)
            place = column[:, None] * H + deep[None, :]
            gate += tl.sum(tl.load(base + place, inside, 0.0).to(tl.float32) * x[None, :], 1)
            up += tl.sum(tl.load(base + WIDE * H + place, inside, 0.0).to(tl.float32) * x[None, :], 1)
            if R > 0:
                low += _narrow(a, slot, x, deep, R, RANK, H)
        if R > 0:
            gate += _wide(b, slot, column, WIDE, low, R, RANK, 2 * WIDE)
            up += _wide(b + WIDE * R, slot, column, WIDE, low, R, RANK, 2 * WIDE)
    share = tl.load(weights + row).to(tl.float32)
    tl.store(active + row * WIDE + column, gate * tl.sigmoid(gate) * up * share, column < WIDE)


@triton.jit
def _down(
    active, chosen, slots, down, a, b, out,
    K: tl.constexpr, E: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, R: tl.constexpr, RANK: tl.constexpr,
    COLUMNS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """Some columns of one token, summed over its experts."""
    token = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for k in tl.static_range(K):
        expert = tl.load(chosen + token * K + k).to(tl.int64)
        if expert < E:
            slot = tl.load(slots + token * K + k).to(tl.int64)
            low = tl.zeros((RANK,), tl.float32)
            for start in range(0, WIDE, DEEP):
                deep = start + tl.arange(0, DEEP)
                inside = (column < H)[:, None] & (deep < WIDE)[None, :]
                x = tl.load(active + (token * K + k) * WIDE + deep, deep < WIDE, 0.0)
                place = expert * H * WIDE + column[:, None] * WIDE + deep[None, :]
                total += tl.sum(tl.load(down + place, inside, 0.0).to(tl.float32) * x[None, :], 1)
                if R > 0:
                    low += _narrow(a, slot, x, deep, R, RANK, WIDE)
            if R > 0:
                total += _wide(b, slot, column, H, low, R, RANK, H)
    tl.store(out + token * H + column, total, column < H)


_upward, _downward = Kernel(_up), Kernel(_down)


def few(
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    low: LowRank | None = None,
) -> torch.Tensor:
    """As `r1core.model.r1.grouped_cpu.experts_cpu`, of a few tokens and without gradients."""
    tokens, per = chosen.shape
    experts, width, wide = down.shape
    hidden, chosen, weights = hidden.contiguous(), chosen.contiguous(), weights.contiguous()
    halves: tuple[torch.Tensor, ...] = (gate_up, gate_up, down, down)
    slots, rank = chosen, 0
    if low is not None:
        slots, halves, rank = low.slots(chosen), tuple(half.contiguous() for half in low.tensors), low.rank
    active = torch.empty(tokens * per, wide, device=hidden.device, dtype=torch.float32)
    out = torch.empty_like(hidden)
    sizes = (per, experts, width, wide, rank, padded(max(1, rank)), COLUMNS)
    tensors = hidden, chosen, slots, weights, gate_up, *halves[:2], active
    _upward((tokens * per, parts(wide, COLUMNS), 1), tensors, (), (*sizes, DEEP))
    tensors = active, chosen, slots, down, *halves[2:], out
    deep = min(DEEP, padded(wide))
    _downward((tokens, parts(width, COLUMNS), 1), tensors, (), (*sizes, deep))
    return out
