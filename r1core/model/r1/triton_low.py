"""Triton kernels for low-rank updates of experts: products of sorted rows with stacks that are narrow on one side.

A tile of rows belongs to one group (an expert, or an expert and an adapter); which rows those are is found on the GPU
from where groups end, so nothing waits for the host. An update is one kernel: a tile's inner product stays where it is
computed. Sums are in fp32 and in one order, so results repeat bit for bit.

S = rows, G = groups, R = rank (padded to a power of two from 16 on; what is more counts as zero), A, B = widths.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

from r1core.model.r1.launch import Kernel, padded, parts
from r1core.model.r1.routed import Pair, Seen

ROWS = 64
"""Rows of a tile."""
WIDE = 64
"""Columns of a wide side that an update takes at a time: more would leave room for fewer programs of a processor."""
COLUMNS = 128
"""Columns of a gradient that one program sums."""


@triton.jit
def _tile(ends, G, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """Group, first row and end of the tile that this program takes; an empty one where it is left over."""
    tile = tl.program_id(0)
    group = tl.arange(0, GROUPS)
    end = tl.load(ends + group, group < G, 0)
    start = tl.load(ends + (group - 1), (group > 0) & (group < G), 0)
    tiles = tl.where(group < G, (end - start + ROWS - 1) // ROWS, 0)
    last = tl.cumsum(tiles, 0)
    mine = (last - tiles <= tile) & (tile < last)
    which = tl.sum(tl.where(mine, group, 0))
    first = tl.sum(tl.where(mine, start + (tile - (last - tiles)) * ROWS, 0))
    return which.to(tl.int64), first, tl.sum(tl.where(mine, end, 0))


@triton.jit
def _update(rows, first_half, second_half, ends, low, out, G,
            A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, RANK: tl.constexpr, GROUPS: tl.constexpr,
            ROWS: tl.constexpr, WIDE: tl.constexpr, BACK: tl.constexpr) -> None:  # fmt: skip
    """Rows (S, A) times one half of a pair into `low` (S, R), and that times the other added to `out` (S, B).

    The halves are (G, R, A) and (G, B, R); the way back, (G, A, R) and (G, R, B).
    """
    group, first, end = _tile(ends, G, GROUPS, ROWS)
    if first < end:
        row = first + tl.arange(0, ROWS)
        inside = row < end
        rank = tl.arange(0, RANK)
        inner = tl.zeros((ROWS, RANK), tl.float32)
        for start in range(0, A, WIDE):
            deep = start + tl.arange(0, WIDE)
            x = tl.load(rows + row[:, None].to(tl.int64) * A + deep, inside[:, None] & (deep < A), 0.0)
            there = (deep < A)[:, None] & (rank < R)
            if BACK:
                half = tl.load(first_half + group * A * R + deep[:, None] * R + rank, there, 0.0)
            else:
                half = tl.load(first_half + group * A * R + deep[:, None] + rank * A, there, 0.0)
            inner = tl.dot(x, half, inner)
        narrow = inner.to(low.dtype.element_ty)
        tl.store(low + row[:, None] * R + rank, narrow, inside[:, None] & (rank < R))
        for start in range(0, B, WIDE):
            column = start + tl.arange(0, WIDE)
            there = (rank < R)[:, None] & (column < B)
            if BACK:
                half = tl.load(second_half + group * B * R + rank[:, None] * B + column, there, 0.0)
            else:
                half = tl.load(second_half + group * B * R + rank[:, None] + column * R, there, 0.0)
            at = out + row[:, None].to(tl.int64) * B + column
            there = inside[:, None] & (column < B)
            tl.store(at, tl.load(at, there, 0.0).to(tl.float32) + tl.dot(narrow, half), there)


@triton.jit
def _across(low, rows, start, end, column, C: tl.constexpr, R: tl.constexpr, RANK: tl.constexpr,
            ROWS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """`low_g^T rows_g` of (S, R) and some columns of (S, C), for one group."""
    rank = tl.arange(0, RANK)
    total = tl.zeros((RANK, WIDE), tl.float32)
    for first in range(start, end, ROWS):
        row = first + tl.arange(0, ROWS)
        x = tl.load(low + row[None, :] * R + rank[:, None], (row < end)[None, :] & (rank < R)[:, None], 0.0)
        y = tl.load(rows + row[:, None].to(tl.int64) * C + column, (row < end)[:, None] & (column < C), 0.0)
        total = tl.dot(x, y, total)
    return total


@triton.jit
def _halves(tile, by_low, rows, low, by_out, ends, down, up, scale,
            A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, RANK: tl.constexpr,
            ROWS: tl.constexpr, WIDE: tl.constexpr) -> None:  # fmt: skip
    """Some columns of one group of the gradient of A, (G, R, A), times `scale`, or of that of B, (G, B, R)."""
    group = tl.program_id(1)
    start = tl.load(ends + (group - 1), group > 0, 0)
    end = tl.load(ends + group)
    rank = tl.arange(0, RANK)[:, None]
    first_of_up: tl.constexpr = (A + WIDE - 1) // WIDE
    if tile < first_of_up:
        column = tile * WIDE + tl.arange(0, WIDE)
        total = _across(by_low, rows, start, end, column, A, R, RANK, ROWS, WIDE)
        tl.store(down + group.to(tl.int64) * A * R + rank * A + column, total * scale, (rank < R) & (column < A))
    if tile >= first_of_up:  # one after the other, not nested: so they share the processor's memory
        column = (tile - first_of_up) * WIDE + tl.arange(0, WIDE)
        total = _across(low, by_out, start, end, column, B, R, RANK, ROWS, WIDE)
        tl.store(up + group.to(tl.int64) * B * R + column * R + rank, total, (rank < R) & (column < B))


@triton.jit
def _slopes(by_low0, rows0, low0, by_out0, by_low1, rows1, low1, by_out1, ends, down0, up0, down1, up1,
            scale0, scale1, A0: tl.constexpr, B0: tl.constexpr, A1: tl.constexpr, B1: tl.constexpr,
            R: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr) -> None:  # fmt: skip
    """The gradients of A and B of two stacks, a tile of columns of a group in each program."""
    tile = tl.program_id(0)
    first_of_other: tl.constexpr = (A0 + WIDE - 1) // WIDE + (B0 + WIDE - 1) // WIDE
    if tile < first_of_other:
        _halves(tile, by_low0, rows0, low0, by_out0, ends, down0, up0, scale0, A0, B0, R, RANK, ROWS, WIDE)
    if tile >= first_of_other:
        _halves(tile - first_of_other, by_low1, rows1, low1, by_out1, ends, down1, up1, scale1,
                A1, B1, R, RANK, ROWS, WIDE)  # fmt: skip


_updating, _sloping = Kernel(_update, num_warps=4, num_stages=3), Kernel(_slopes, num_warps=4, num_stages=3)


def update(out: torch.Tensor, rows: torch.Tensor, pair: Pair, ends: torch.Tensor, back: bool) -> torch.Tensor:
    """Add `rows_g A_g^T B_g^T` to `out` in place; the way back, `rows_g B_g A_g`.

    Parameters
    ----------
    out, rows : (S, out) and (S, in), sorted by group; the way back, the other way round.
    ends : (G,) int32, where groups end.

    Returns
    -------
    The product with the first half, (S, R); rows past the last end are undefined.
    """
    (groups, rank, _), (size, deep), wide = pair.down.shape, rows.shape, out.shape[1]
    down, up = pair.down.contiguous(), pair.up.contiguous()
    low = rows.new_empty(size, rank)
    _updating(
        (parts(size, ROWS) + groups, 1, 1),
        (rows, up, down, ends, low, out) if back else (rows, down, up, ends, low, out),
        (groups,),
        (deep, wide, rank, _padded(rank), padded(groups), ROWS, WIDE, back),
    )
    return low


def slopes(
    seen: tuple[Seen, Seen], ends: torch.Tensor, scales: tuple[float, float], dtypes: tuple[torch.dtype, torch.dtype]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of A and B of one stack, and of another.

    Parameters
    ----------
    seen : what they are made of, sorted by group; both of one rank.
    ends : (G,) int32, where groups end.
    scales : what the gradient of A is multiplied by.
    dtypes : that of the gradient of A.

    Returns
    -------
    `scale by_low_g^T rows_g`, (G, R, A), and `by_out_g^T low_g`, (G, B, R) in fp32, of each.
    """
    (groups,), rank = ends.shape, seen[0].low.shape[1]
    widths = [side.shape[1] for one in seen for side in (one.rows, one.by_out)]
    down0, down1 = (
        ends.new_empty((groups, rank, wide), dtype=dtype) for wide, dtype in zip(widths[::2], dtypes, strict=True)
    )
    up0, up1 = (ends.new_empty((groups, wide, rank), dtype=torch.float32) for wide in widths[1::2])
    _sloping(
        (sum(parts(wide, COLUMNS) for wide in widths), groups, 1),
        (*seen[0], *seen[1], ends, down0, up0, down1, up1),
        [float(scale) for scale in scales],
        (*widths, rank, _padded(rank), ROWS, COLUMNS),
    )
    return down0, up0, down1, up1


def _padded(rank: int) -> int:
    return max(16, padded(rank))
