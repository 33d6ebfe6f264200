"""Triton kernels that answer a few queries of each head straight from packed codes: nothing unpacked reaches memory.

The context is split over programs, each of which keeps a running softmax (Milakov and Gimelshein, arXiv:1805.02867);
a second kernel merges their results by their logs. The tokens that are kept exactly are one more part. Codes become
numbers of the query's dtype in registers, as unpacking gives them; products add up in fp32.

B = batch, H = key/value heads, A = attention heads, Q = queries of a head, R = A / H * Q, N = blocks, S = parts.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl

from r1core.model.kv.blocks import Blocks
from r1core.model.kv.layout import BLOCK, HALF

WAVES = 4
"""Programs for each multiprocessor, at most: more hide memory's latency, and each adds a part to merge."""
PARTS = 128
"""Parts of one head at most: one program merges them, from registers."""
WARPS, STAGES = 4, 3
LEAST = tl.constexpr(torch.finfo(torch.float32).min)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _planes(packed, at, inside, LOW: tl.constexpr, BITS: tl.constexpr, RUN: tl.constexpr):
    """Bytes of a block: those of 4 bits at places `at`, of which there are LOW, and those with what is above them."""
    low = tl.load(packed + at, inside, 0).to(tl.int32)
    above = low
    if BITS > 4:
        above = tl.load(packed + LOW + at % RUN, inside, 0).to(tl.int32)
    return low, above


@triton.jit
def _code(low, above, at, half: tl.constexpr, BITS: tl.constexpr, RUN: tl.constexpr):
    """Numbers of one half of a block: 4 bits, and what is above them; `at` is their place in the half."""
    code = (low >> (4 * half)) & 15
    if BITS > 4:
        ABOVE: tl.constexpr = BITS - 4
        place = at // RUN + half * (4 // ABOVE)
        code |= ((above >> (place * ABOVE)) & ((1 << ABOVE) - 1)) << 4
    return code.to(tl.float32)


@triton.jit
def _masked(scores, mask, rows, token, by_token, inside, real, MASK: tl.constexpr):
    """Scores (R, tokens) in units of log2 under a mask of nothing (0), of bool (1) or to be added (2)."""
    if MASK > 0:
        said = tl.load(mask + rows[:, None] + token[None, :] * by_token, inside[None, :] & real[:, None], 0)
        if MASK == 1:
            scores = tl.where(said != 0, scores, LEAST)
        else:
            scores = tl.maximum(scores + said.to(tl.float32) * LOG2E, LEAST)
    return tl.where(inside[None, :], scores, float("-inf"))


@triton.jit
def _grown(best, total, mixed, scores, values):
    """The running softmax with some more tokens in it."""
    top = tl.maximum(best, tl.max(scores, 1))
    weights = tl.exp2(scores - top[:, None])
    shrink = tl.exp2(best - top)
    mixed = mixed * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return top, total * shrink + tl.sum(weights, 1), mixed


@triton.jit
def _valued(codes, steps, zeros, group, c, VALUE: tl.constexpr, J: tl.constexpr):
    """Values (tokens, D) of their codes; `group` is each token's first group, `c` counts channels."""
    if J == 1:
        step = tl.load(steps + group).to(tl.float32)
        zero = tl.load(zeros + group).to(tl.float32)
        codes = codes * step[:, None] + zero[:, None]
    else:
        which = group[:, None] + (c // (VALUE // J))[None, :]
        wide = tl.load(steps + which, (c < VALUE)[None, :], 0.0).to(tl.float32)
        codes = codes * wide + tl.load(zeros + which, (c < VALUE)[None, :], 0.0).to(tl.float32)
    return codes


@triton.jit
def _exact(best, total, mixed, q, keys, values, count, before, scale, mask, rows, by_token, real,
           KEY: tl.constexpr, VALUE: tl.constexpr, KW: tl.constexpr, VW: tl.constexpr, HALF: tl.constexpr,
           MASK: tl.constexpr):  # fmt: skip
    """The running softmax with `count` exact tokens in it, the first of which is token `before`."""
    d, c, t = tl.arange(0, KW), tl.arange(0, VW), tl.arange(0, HALF)
    for start in range(0, count, HALF):
        at = start + t
        there = at < count
        k = tl.load(keys + at[None, :] * KEY + d[:, None], there[None, :] & (d < KEY)[:, None], 0.0)
        v = tl.load(values + at[:, None] * VALUE + c[None, :], there[:, None] & (c < VALUE)[None, :], 0.0)
        scores = tl.dot(q, k.to(q.dtype), input_precision="ieee") * scale
        scores = _masked(scores, mask, rows, before + at, by_token, there & (before + at >= 0), real, MASK)
        best, total, mixed = _grown(best, total, mixed, scores, v.to(q.dtype))
    return best, total, mixed


@triton.jit(do_not_specialize=["firsts", "newests", "blocks", "hidden", "parts", "room", "exact_room", "by_batch",
                               "by_head", "by_query", "by_token", "scale"])  # fmt: skip
def _attend(
    query, keys, key_steps, key_zeros, values, value_steps, value_zeros,
    first_keys, first_values, newest_keys, newest_values, mask, lengths, out, logs,
    scale, firsts, newests, blocks, hidden, parts, room, exact_room, by_batch, by_head, by_query, by_token,
    H: tl.constexpr, GROUP: tl.constexpr, Q: tl.constexpr, ROWS: tl.constexpr,
    KEY: tl.constexpr, VALUE: tl.constexpr, KW: tl.constexpr, VW: tl.constexpr, BITS: tl.constexpr, P: tl.constexpr,
    J: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr, MASK: tl.constexpr, TOLD: tl.constexpr,
):  # fmt: skip
    """One part of the context for one head of one row; the last has what is exact. TOLD: `lengths` has the counts."""
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if TOLD:
        blocks = tl.load(lengths).to(tl.int32)
        newests = tl.load(lengths + 1).to(tl.int32)
    per = tl.maximum((blocks + parts - 1) // parts, 1)
    last = tl.maximum((blocks + per - 1) // per, 1) - 1
    r, d, c, t = tl.arange(0, ROWS), tl.arange(0, KW), tl.arange(0, VW), tl.arange(0, HALF)
    real = r < GROUP * Q
    place = (head * GROUP * Q + r)[:, None]
    q = tl.load(query + place * KEY + d[None, :], real[:, None] & (d < KEY)[None, :], 0.0)
    rows = (head // H) * by_batch + ((head % H) * GROUP + r // Q) * by_head + (r % Q) * by_query
    best = tl.full((ROWS,), LEAST, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, VW), tl.float32)
    KEY_BYTES: tl.constexpr = BLOCK * KEY * BITS // 8
    VALUE_BYTES: tl.constexpr = BLOCK * VALUE * BITS // 8
    KEY_RUN: tl.constexpr = BLOCK * KEY * (BITS - 4) // 8
    VALUE_RUN: tl.constexpr = BLOCK * VALUE * (BITS - 4) // 8
    at_key = d[:, None] * HALF + t[None, :]
    at_value = t[:, None] * VALUE + c[None, :]
    for block in range(part * per, tl.minimum(part * per + per, blocks)):
        here = head * room + block
        k_low, k_above = _planes(keys + here * KEY_BYTES, at_key, (d < KEY)[:, None], HALF * KEY, BITS, KEY_RUN)
        v_low, v_above = _planes(values + here * VALUE_BYTES, at_value, (c < VALUE)[None, :], HALF * VALUE, BITS,
                                 VALUE_RUN)  # fmt: skip
        for half in tl.static_range(2):
            group = (here * P + half * (P - 1)) * KEY + d
            step = tl.load(key_steps + group, d < KEY, 0.0).to(tl.float32)
            zero = tl.load(key_zeros + group, d < KEY, 0.0).to(tl.float32)
            k = _code(k_low, k_above, at_key, half, BITS, KEY_RUN) * step[:, None] + zero[:, None]
            scores = tl.dot(q, k.to(q.dtype), input_precision="ieee") * scale
            token = firsts + block * BLOCK + half * HALF + t - hidden
            scores = _masked(scores, mask, rows, token, by_token, token >= 0, real, MASK)
            group = (here * BLOCK + half * HALF + t) * J
            v = _code(v_low, v_above, at_value, half, BITS, VALUE_RUN)
            v = _valued(v, value_steps, value_zeros, group, c, VALUE, J)
            best, total, mixed = _grown(best, total, mixed, scores, v.to(q.dtype))
    if part == last:
        best, total, mixed = _exact(
            best, total, mixed, q, first_keys + head * firsts * KEY, first_values + head * firsts * VALUE, firsts,
            0 - hidden, scale, mask, rows, by_token, real, KEY, VALUE, KW, VW, HALF, MASK)  # fmt: skip
        best, total, mixed = _exact(
            best, total, mixed, q, newest_keys + head * exact_room * KEY, newest_values + head * exact_room * VALUE,
            newests, firsts + blocks * BLOCK - hidden, scale, mask, rows, by_token, real, KEY, VALUE, KW, VW, HALF,
            MASK)  # fmt: skip
    row = (head * parts + part) * GROUP * Q + r
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(out + row[:, None] * VALUE + c[None, :], mixed, real[:, None] & (c < VALUE)[None, :])
    tl.store(logs + row, best + tl.log2(total), real)  # -inf where a part has nothing that is in sight


@triton.jit(do_not_specialize=["parts"])
def _merge(mixed, logs, out, denominators, parts,
           ROWS: tl.constexpr, VALUE: tl.constexpr, VW: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """One row of queries over all parts."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s, c = tl.arange(0, PARTS), tl.arange(0, VW)
    at = (head * parts + s) * ROWS + row
    log = tl.load(logs + at, s < parts, float("-inf"))
    best = tl.max(log, 0)
    weights = tl.exp2(log - best)
    total = tl.sum(weights, 0)
    inside = (s < parts)[:, None] & (c < VALUE)[None, :]
    numbers = tl.load(mixed + at[:, None] * VALUE + c[None, :], inside, 0.0)
    numbers = tl.sum(numbers * weights[:, None], 0) / total
    log = best + tl.log2(total)
    tl.store(out + (head * ROWS + row) * VALUE + c, numbers, c < VALUE)
    tl.store(denominators + head * ROWS + row, tl.where(log > LEAST, log / LOG2E, LEAST))


def attend(
    blocks: Blocks,
    exact: Sequence[torch.Tensor],
    hidden: int,
    query: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `r1core.model.kv.states.Held.attend_in_part`; `exact` = keys and values before the blocks, and behind.

    `lengths` (2,) int64 : how many blocks, and exact tokens behind them, are filled, where there is room for more.
    """
    batch, heads, new, width = query.shape
    groups, value = int(blocks.keys.shape[1]), blocks.widths[1]
    group = heads // groups
    rows = group * new
    most = _most(batch * groups, query.device)
    parts = max(1, min(most, blocks.count))
    mixed = torch.empty(batch * groups * parts * rows * (value + 1), dtype=torch.float32, device=query.device)
    logs = mixed[batch * groups * parts * rows * value :]
    out = torch.empty(batch, heads, new, value, dtype=query.dtype, device=query.device)
    denominators = torch.empty(batch, heads, new, dtype=torch.float32, device=query.device)
    kind, strides = 0, [0, 0, 0, 0]
    if mask is not None:
        kind = 1 if mask.dtype == torch.bool else 2
        strides = [0 if size == 1 else step for size, step in zip(mask.shape, mask.stride(), strict=True)]
        mask = mask.view(torch.uint8) if kind == 1 else mask
    exact = [part.contiguous() for part in exact]
    wide = [max(16, triton.next_power_of_2(size)) for size in (rows, width, value)]
    scaled = (width**-0.5 if scale is None else scale) * LOG2E.value
    with torch.cuda.device(query.device):
        _attend[(batch * groups, parts)](
            query.contiguous(), *(part.contiguous() for part in blocks.tensors()), *exact,
            query if mask is None else mask, query if lengths is None else lengths, mixed, logs,
            scaled, exact[0].shape[2], exact[2].shape[2], blocks.count, hidden, parts, blocks.count, exact[2].shape[2],
            *strides,
            groups, group, new, wide[0], width, value, wide[1], wide[2], blocks.bits, blocks.key_steps.shape[3],
            blocks.value_steps.shape[-1], BLOCK, HALF, kind, lengths is not None,
            num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
        _merge[(batch * groups, rows)](
            mixed, logs, out, denominators, parts, rows, value, wide[2], triton.next_power_of_2(most),
            num_warps=4 if wide[2] <= 64 else 8,
        )  # fmt: skip
    return out, denominators


def _most(heads: int, device: torch.device) -> int:
    """Parts of the context at most; by this and the number of blocks it is cut, whatever room there is for more.

    So recorded steps, whose grid cannot follow the number of blocks, add up in the same order as others.
    """
    return max(1, min(PARTS, WAVES * _multiprocessors(device) // heads))


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
