"""Triton kernels for low-rank updates of experts: products of sorted rows with stacks that are narrow on one side.

Each reads its wide side once. A tile of rows belongs to one group (an expert, or an expert and an adapter); which rows
those are is found on the GPU from where groups end, so nothing waits for the host. Sums are in fp32 and in one order,
so results repeat bit for bit.

S = rows, G = groups, R = rank (a power of two from 16 on; more than there is counts as zero), C = width of the other
side.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS = 64
"""Rows of a tile."""
WIDE = 128
"""Columns of the wide side that are taken at a time."""


@triton.jit
def _tile(ends, G, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """Group, first row and end of the tile that this program takes; an empty one where it is left over."""
    tile = tl.program_id(0)
    group = tl.arange(0, GROUPS)
    end = tl.load(ends + group, group < G, 0)
    start = tl.load(ends + group - 1, (group > 0) & (group < G), 0)
    tiles = tl.where(group < G, (end - start + ROWS - 1) // ROWS, 0)
    last = tl.cumsum(tiles, 0)
    mine = (last - tiles <= tile) & (tile < last)
    which = tl.sum(tl.where(mine, group, 0))
    first = tl.sum(tl.where(mine, start + (tile - (last - tiles)) * ROWS, 0))
    return which.to(tl.int64), first, tl.sum(tl.where(mine, end, 0))


@triton.jit
def _narrow(rows, stack, ends, out, G, R, by_group, by_deep, by_rank,
            C: tl.constexpr, RANK: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr,
            WIDE: tl.constexpr) -> None:  # fmt: skip
    """Rows (S, C) times a stack (G, C, R)."""
    group, first, end = _tile(ends, G, GROUPS, ROWS)
    if first < end:
        row = first + tl.arange(0, ROWS)
        inside = row < end
        rank = tl.arange(0, RANK)
        low = tl.zeros((ROWS, RANK), tl.float32)
        for start in range(0, C, WIDE):
            deep = start + tl.arange(0, WIDE)
            x = tl.load(rows + row[:, None].to(tl.int64) * C + deep, inside[:, None] & (deep < C), 0.0)
            half = tl.load(
                stack + group * by_group + deep[:, None] * by_deep + rank * by_rank,
                (deep < C)[:, None] & (rank < R), 0.0,
            )  # fmt: skip
            low = tl.dot(x, half, low)
        tl.store(out + row[:, None] * R + rank, low, inside[:, None] & (rank < R))


@triton.jit
def _add(out, low, stack, ends, G, R, by_group, by_rank, by_column,
         C: tl.constexpr, RANK: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr,
         WIDE: tl.constexpr) -> None:  # fmt: skip
    """Rows (S, R) times a stack (G, R, C), added."""
    group, first, end = _tile(ends, G, GROUPS, ROWS)
    if first < end:
        row = first + tl.arange(0, ROWS)
        column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
        rank = tl.arange(0, RANK)
        inside = (row < end)[:, None] & (column < C)
        at = out + row[:, None].to(tl.int64) * C + column
        x = tl.load(low + row[:, None] * R + rank, (row < end)[:, None] & (rank < R), 0.0)
        half = tl.load(
            stack + group * by_group + rank[:, None] * by_rank + column * by_column,
            (rank < R)[:, None] & (column < C), 0.0,
        )  # fmt: skip
        tl.store(at, tl.load(at, inside, 0.0).to(tl.float32) + tl.dot(x, half), inside)


@triton.jit
def _outer(low, rows, ends, out, R, by_group, by_rank, by_column,
           C: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr) -> None:  # fmt: skip
    """`low_g^T rows_g` of (S, R) and (S, C), for one group and some columns."""
    group = tl.program_id(0)
    start = tl.load(ends + group - 1, group > 0, 0)
    end = tl.load(ends + group)
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    rank = tl.arange(0, RANK)
    total = tl.zeros((RANK, WIDE), tl.float32)
    for first in range(start, end, ROWS):
        row = first + tl.arange(0, ROWS)
        x = tl.load(low + row[None, :] * R + rank[:, None], (row < end)[None, :] & (rank < R)[:, None], 0.0)
        y = tl.load(rows + row[:, None].to(tl.int64) * C + column, (row < end)[:, None] & (column < C), 0.0)
        total = tl.dot(x, y, total)
    at = out + group.to(tl.int64) * by_group + rank[:, None] * by_rank + column * by_column
    tl.store(at, total, (rank < R)[:, None] & (column < C))


def narrow(rows: torch.Tensor, stack: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """`rows_g stack_g` of rows (S, C), sorted by group, and (G, C, R): (S, R); rows past the last end are undefined."""
    groups, wide, rank = stack.shape
    out = rows.new_empty(len(rows), rank)
    _narrow[(triton.cdiv(len(rows), ROWS) + groups,)](
        rows, stack, ends, out, groups, rank, *stack.stride(), wide, _padded(rank), _bins(groups), ROWS, WIDE
    )
    return out


def add(out: torch.Tensor, low: torch.Tensor, stack: torch.Tensor, ends: torch.Tensor) -> None:
    """Add `low_g stack_g` of rows (S, R), sorted by group, and (G, R, C) to `out`, (S, C), in place."""
    groups, rank, wide = stack.shape
    _add[(triton.cdiv(len(out), ROWS) + groups, triton.cdiv(wide, WIDE))](
        out, low, stack, ends, groups, rank, *stack.stride(), wide, _padded(rank), _bins(groups), ROWS, WIDE
    )


def outer(left: torch.Tensor, right: torch.Tensor, like: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """`left_g^T right_g` of sorted rows (S, a) and (S, b), one of them narrow: (G, a, b) in fp32."""
    out = torch.empty_like(like, dtype=torch.float32, memory_format=torch.contiguous_format)
    swapped = left.shape[1] > right.shape[1]
    low, rows, at = (right, left, out.mT) if swapped else (left, right, out)
    rank, wide = low.shape[1], rows.shape[1]
    _outer[(len(ends), triton.cdiv(wide, WIDE))](
        low, rows, ends, at, rank, *at.stride(), wide, _padded(rank), ROWS, WIDE
    )
    return out


def _padded(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))


def _bins(groups: int) -> int:
    return triton.next_power_of_2(groups)
