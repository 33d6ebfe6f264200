"""Triton kernels between the grouped products of routed experts: sorting rows by expert, gating, bringing rows home.

Each reads its input once and writes its output once, in fp32 inside. Sorting is a counting sort that keeps the order
of tokens, so sums run in one order and results repeat bit for bit.

S = rows, K = experts of a token, E = experts, H = model width, I = expert width, B = rows of a block.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

from r1core.model.r1.launch import Kernel, padded, parts

BLOCK = 256
"""Rows that one program sorts; it compares each with each."""


@triton.jit
def _count(ids, rank, counts, S, E: tl.constexpr, BINS: tl.constexpr, B: tl.constexpr) -> None:
    """Rank of each row among its block's rows of the same expert, and each expert's rows in the block."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    mine = tl.minimum(tl.load(ids + at, at < S, BINS - 1).to(tl.int32), E)
    mine = tl.where(at < S, mine, BINS - 1)
    other = tl.program_id(0) * B + tl.arange(0, B)
    theirs = tl.minimum(tl.load(ids + other, other < S, BINS - 1).to(tl.int32), E)
    theirs = tl.where(other < S, theirs, BINS - 1)
    before = (mine[:, None] == theirs[None, :]) & (other[None, :] < at[:, None])
    tl.store(rank + at, tl.sum(before.to(tl.int32), 1), at < S)
    bins = tl.arange(0, BINS)
    tl.store(counts + tl.program_id(0) * BINS + bins, tl.histogram(mine, BINS))


@triton.jit
def _starts(counts, offsets, blocks, E: tl.constexpr, BINS: tl.constexpr) -> None:
    """Where each block's rows of each expert start, in place of the counts; where each expert ends."""
    bins = tl.arange(0, BINS)
    total = tl.zeros((BINS,), tl.int32)
    for block in range(blocks):
        total += tl.load(counts + block * BINS + bins)
    ends = tl.cumsum(total, 0)
    tl.store(offsets + bins, ends, bins < E)
    start = ends - total
    for block in range(blocks):
        here = tl.load(counts + block * BINS + bins)
        tl.store(counts + block * BINS + bins, start)
        start += here


@triton.jit
def _place(ids, rank, starts, weights, place, token, shares, S,
           E: tl.constexpr, K: tl.constexpr, BINS: tl.constexpr, B: tl.constexpr) -> None:  # fmt: skip
    """Where each row goes; and for the row that stands there its token and its share."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    inside = at < S
    expert = tl.minimum(tl.load(ids + at, inside, E).to(tl.int32), E)
    to = tl.load(starts + tl.program_id(0) * BINS + expert, inside) + tl.load(rank + at, inside)
    tl.store(place + at, to, inside)
    tl.store(token + to, at // K, inside)
    tl.store(shares + to, tl.load(weights + at, inside), inside)


@triton.jit
def _gate(both, shares, active, WIDE: tl.constexpr, W: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W)
    inside = column < WIDE
    gate = tl.load(both + row * 2 * WIDE + column, inside, 0.0).to(tl.float32)
    up = tl.load(both + row * 2 * WIDE + WIDE + column, inside, 0.0).to(tl.float32)
    share = tl.load(shares + row).to(tl.float32)
    tl.store(active + row * WIDE + column, gate * tl.sigmoid(gate) * up * share, inside)


@triton.jit
def _gate_back(both, shares, by_active, by_both, active, by_share,
               WIDE: tl.constexpr, W: tl.constexpr) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W)
    inside = column < WIDE
    gate = tl.load(both + row * 2 * WIDE + column, inside, 0.0).to(tl.float32)
    up = tl.load(both + row * 2 * WIDE + WIDE + column, inside, 0.0).to(tl.float32)
    slope = tl.load(by_active + row * WIDE + column, inside, 0.0).to(tl.float32)
    share = tl.load(shares + row).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    tl.store(active + row * WIDE + column, silu * up * share, inside)
    tl.store(by_share + row, tl.sum(silu * up * slope))
    slope = slope * share
    tl.store(by_both + row * 2 * WIDE + column, slope * up * (sigmoid + silu * (1 - sigmoid)), inside)
    tl.store(by_both + row * 2 * WIDE + WIDE + column, slope * silu, inside)


@triton.jit
def _home(rows, place, last, out, K: tl.constexpr, H: tl.constexpr, W: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W)
    inside = column < H
    end = tl.load(last)
    total = tl.zeros((W,), tl.float32)
    for k in tl.static_range(K):
        row = tl.load(place + token * K + k).to(tl.int64)
        total += tl.load(rows + row * H + column, inside & (row < end), 0.0).to(tl.float32)
    tl.store(out + token * H + column, total, inside)


_counting, _starting, _placing = Kernel(_count, num_warps=8), Kernel(_starts), Kernel(_place)
_gating, _gating_back, _homing = Kernel(_gate), Kernel(_gate_back), Kernel(_home)


def sort_by_expert(
    chosen: torch.Tensor, weights: torch.Tensor, experts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort the S = N K rows of `chosen` (N, K) by expert, those of an index of E or above last.

    Returns
    -------
    place : (S,) where each row goes.
    token : (S,) whose row stands at each place.
    shares : (S,) its weight.
    offsets : (E,) int32, where each expert's rows end.
    """
    rows, per = chosen.numel(), chosen.shape[-1]
    bins = padded(experts + 2)
    blocks = parts(rows, BLOCK)

    def whole(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.int32, device=chosen.device)

    rank, place, token = whole(rows), whole(rows), whole(rows)
    counts, offsets = whole(blocks, bins), whole(experts)
    shares = torch.empty(rows, dtype=weights.dtype, device=weights.device)
    ids, flat = chosen.contiguous(), weights.contiguous()
    _counting((blocks, 1, 1), (ids, rank, counts), (rows,), (experts, bins, BLOCK))
    _starting((1, 1, 1), (counts, offsets), (blocks,), (experts, bins))
    _placing((blocks, 1, 1), (ids, rank, counts, flat, place, token, shares), (rows,), (experts, per, bins, BLOCK))
    return place, token, shares, offsets


def gate(both: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up * share` of rows (S, 2 I): (S, I)."""
    wide = both.shape[1] // 2
    active = both.new_empty(both.shape[0], wide)
    _gating((both.shape[0], 1, 1), (both, shares, active), (), (wide, padded(wide)))
    return active


def gate_back(
    both: torch.Tensor, shares: torch.Tensor, by_active: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted activations (S, I), the gradient of both projections (S, 2 I), and that of the shares (S,)."""
    wide = both.shape[1] // 2
    by_both, active, by_share = torch.empty_like(both), torch.empty_like(by_active), torch.empty_like(shares)
    tensors = both, shares, by_active, by_both, active, by_share
    _gating_back((both.shape[0], 1, 1), tensors, (), (wide, padded(wide)))
    return active, by_both, by_share


def home(rows: torch.Tensor, place: torch.Tensor, last: torch.Tensor, per: int) -> torch.Tensor:
    """Rows (S, H) back to their tokens and summed, (S / K, H); rows from `last`, (), on count nothing."""
    width = rows.shape[1]
    out = rows.new_empty(rows.shape[0] // per, width)
    _homing((out.shape[0], 1, 1), (rows, place, last, out), (), (per, width, padded(width)))
    return out
