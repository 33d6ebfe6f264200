"""Triton kernels for the experts of a few tokens: each expert's weights are read where they lie, nothing is gathered.

N = tokens, K = experts of a token, E = experts, H = model width, I = expert width.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

COLUMNS, DEEP = 16, 256
"""Outputs of a program, and inputs that it takes at a time."""


@triton.jit
def _up(
    hidden, chosen, weights, gate_up, active,
    K: tl.constexpr, E: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up * weight of one row of (N K) rows, some columns."""
    row = tl.program_id(0)
    expert = tl.load(chosen + row).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    gate = tl.zeros((COLUMNS,), tl.float32)
    up = tl.zeros((COLUMNS,), tl.float32)
    if expert < E:
        base = gate_up + expert * 2 * WIDE * H
        for start in range(0, H, DEEP):
            deep = start + tl.arange(0, DEEP)
            inside = (column < WIDE)[:, None] & (deep < H)[None, :]
            x = tl.load(hidden + (row // K) * H + deep, deep < H, 0.0).to(tl.float32)
            place = column[:, None] * H + deep[None, :]
            gate += tl.sum(tl.load(base + place, inside, 0.0).to(tl.float32) * x[None, :], 1)
            up += tl.sum(tl.load(base + WIDE * H + place, inside, 0.0).to(tl.float32) * x[None, :], 1)
    share = tl.load(weights + row).to(tl.float32)
    tl.store(active + row * WIDE + column, gate * tl.sigmoid(gate) * up * share, column < WIDE)


@triton.jit
def _down(
    active, chosen, down, out,
    K: tl.constexpr, E: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """Some columns of one token, summed over its experts."""
    token = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for k in tl.static_range(K):
        expert = tl.load(chosen + token * K + k).to(tl.int64)
        if expert < E:
            for start in range(0, WIDE, DEEP):
                deep = start + tl.arange(0, DEEP)
                inside = (column < H)[:, None] & (deep < WIDE)[None, :]
                a = tl.load(active + (token * K + k) * WIDE + deep, deep < WIDE, 0.0)
                place = expert * H * WIDE + column[:, None] * WIDE + deep[None, :]
                total += tl.sum(tl.load(down + place, inside, 0.0).to(tl.float32) * a[None, :], 1)
    tl.store(out + token * H + column, total, column < H)


def few(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """As `r1core.model.r1.grouped_cpu.experts_cpu`, of a few tokens and without gradients."""
    tokens, per = chosen.shape
    experts, width, wide = down.shape
    hidden, chosen, weights = hidden.contiguous(), chosen.contiguous(), weights.contiguous()
    active = torch.empty(tokens * per, wide, device=hidden.device, dtype=torch.float32)
    out = torch.empty_like(hidden)
    _up[(tokens * per, triton.cdiv(wide, COLUMNS))](
        hidden, chosen, weights, gate_up, active, per, experts, width, wide, COLUMNS, DEEP
    )
    _down[(tokens, triton.cdiv(width, COLUMNS))](
        active, chosen, down, out, per, experts, width, wide, COLUMNS, min(DEEP, triton.next_power_of_2(wide))
    )
    return out
