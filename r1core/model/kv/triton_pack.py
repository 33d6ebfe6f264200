"""Triton kernels that pack blocks: two launches for any number of them, where plain torch takes some sixty.

A program first finds the steps and zeros of its block, then reads the block again, once for each byte that it writes:
a byte holds numbers that lie far apart, and a block is small enough to be near still.

B = batch, H = heads, N = blocks, D = head width, P = key groups in a block, J = value groups in a head.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl

from r1core.model.kv.layout import BLOCK, HALF, KEY_GROUPS, value_group

BYTES = 512
"""Bytes that a program makes at a time."""
EVEN = tl.constexpr(12582912.0)
"""1.5 * 2^23: an fp32 number below 2^22 that it is added to, and taken off again, is rounded half to even."""


@triton.jit
def _scaled(low, high, LEVELS: tl.constexpr):
    """Step and zero, bf16."""
    return tl.div_rn(high - low, tl.zeros_like(low) + LEVELS).to(tl.bfloat16), low.to(tl.bfloat16)


@triton.jit
def _number(states, steps, zeros, at, half: tl.constexpr, inside, by_token,
            D: tl.constexpr, P: tl.constexpr, J: tl.constexpr, LEVELS: tl.constexpr, HALF: tl.constexpr,
            KEYS: tl.constexpr):  # fmt: skip
    """Codes of the numbers at places `at` of one half of a block, int32."""
    if KEYS:
        token, channel = half * HALF + at % HALF, at // HALF
        group = half * (P - 1) * D + channel
    else:
        token, channel = half * HALF + at // D, at % D
        group = token * J + channel // (D // J)
    x = tl.load(states + token * by_token + channel, inside, 0.0).to(tl.float32)
    step = tl.load(steps + group, inside, 1.0).to(tl.float32)
    x = x - tl.load(zeros + group, inside, 0.0).to(tl.float32)
    code = (tl.div_rn(x, tl.where(step > 0, step, 1.0)) + EVEN) - EVEN
    return tl.minimum(tl.maximum(code, 0.0), LEVELS).to(tl.int32)


@triton.jit
def _of_keys(states, steps, zeros, by_token, D: tl.constexpr, W: tl.constexpr, P: tl.constexpr, LEVELS: tl.constexpr,
             BLOCK: tl.constexpr):  # fmt: skip
    """Write steps and zeros of each channel over each group of tokens."""
    c, t = tl.arange(0, W), tl.arange(0, BLOCK // P)
    for group in tl.static_range(P):
        token = group * (BLOCK // P) + t
        x = tl.load(states + token[:, None] * by_token + c[None, :], (c < D)[None, :] & (t < BLOCK)[:, None], 0.0)
        step, zero = _scaled(tl.min(x.to(tl.float32), 0), tl.max(x.to(tl.float32), 0), LEVELS)
        tl.store(steps + group * D + c, step, c < D)
        tl.store(zeros + group * D + c, zero, c < D)


@triton.jit
def _of_values(states, steps, zeros, by_token, D: tl.constexpr, J: tl.constexpr, W: tl.constexpr,
               LEVELS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Write steps and zeros of each token over each group of channels."""
    c, t = tl.arange(0, W), tl.arange(0, BLOCK)
    inside = (c < D // J)[None, :] & (t < BLOCK)[:, None]
    for group in tl.static_range(J):
        x = tl.load(states + t[:, None] * by_token + group * (D // J) + c[None, :], inside, 0.0).to(tl.float32)
        low = tl.min(tl.where(inside, x, float("inf")), 1)
        step, zero = _scaled(low, tl.max(tl.where(inside, x, float("-inf")), 1), LEVELS)
        tl.store(steps + t * J + group, step)
        tl.store(zeros + t * J + group, zero)


@triton.jit(do_not_specialize=["blocks"])
def _pack(
    states, out, steps, zeros, blocks, heads, by_batch, by_head, by_token,
    D: tl.constexpr, W: tl.constexpr, P: tl.constexpr, J: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr, HALF: tl.constexpr, BYTES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One block of one head of one row, of keys or of values; W, a power of 2, holds what shares a step in a token."""
    LEVELS: tl.constexpr = (1 << BITS) - 1
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    here = head * blocks + block
    states += (head // heads) * by_batch + (head % heads) * by_head + block.to(tl.int64) * BLOCK * by_token
    if KEYS:
        steps += here * P * D
        zeros += here * P * D
        _of_keys(states, steps, zeros, by_token, D, W, P, LEVELS, BLOCK)
    else:
        steps += here * BLOCK * J
        zeros += here * BLOCK * J
        _of_values(states, steps, zeros, by_token, D, J, W, LEVELS, BLOCK)
    tl.debug_barrier()  # what other threads of the program have stored is read below
    out += here * (BLOCK * D * BITS // 8)
    for start in range(0, HALF * D, BYTES):
        at = start + tl.arange(0, BYTES)
        inside = at < HALF * D
        first = _number(states, steps, zeros, at, 0, inside, by_token, D, P, J, LEVELS, HALF, KEYS)
        second = _number(states, steps, zeros, at, 1, inside, by_token, D, P, J, LEVELS, HALF, KEYS)
        tl.store(out + at, ((first & 15) | ((second & 15) << 4)).to(tl.uint8), inside)
    if BITS > 4:
        ABOVE: tl.constexpr = BITS - 4
        RUN: tl.constexpr = BLOCK * D * ABOVE // 8
        for begin in range(0, RUN, BYTES):
            byte = begin + tl.arange(0, BYTES)
            there = byte < RUN
            made = tl.zeros((BYTES,), tl.int32)
            for place in tl.static_range(8 // ABOVE):
                code = _number(
                    states, steps, zeros, (place % (4 // ABOVE)) * RUN + byte, place // (4 // ABOVE), there, by_token,
                    D, P, J, LEVELS, HALF, KEYS,
                )  # fmt: skip
                made |= (code >> 4) << (place * ABOVE)
            tl.store(out + HALF * D + byte, made.to(tl.uint8), there)


def pack_blocks(keys: torch.Tensor, values: torch.Tensor, bits: int) -> list[torch.Tensor]:
    """The tensors of `r1core.model.kv.blocks.Blocks`, in its order, of keys and values (B, H, T, D)."""
    made = []
    for states, is_keys in ((keys, True), (values, False)):
        states = states if states.stride(-1) == 1 else states.contiguous()
        batch, heads, tokens, width = states.shape
        blocks = tokens // BLOCK
        groups = BLOCK // KEY_GROUPS[bits] if is_keys else width // value_group(width)
        shape = (groups, width) if is_keys else (BLOCK, groups)

        def fresh(*sizes: int, dtype: torch.dtype, like: torch.Tensor = states, count: int = blocks) -> torch.Tensor:
            return torch.empty(*like.shape[:2], count, *sizes, dtype=dtype, device=like.device)

        codes = fresh(BLOCK * width * bits // 8, dtype=torch.uint8)
        steps, zeros = fresh(*shape, dtype=torch.bfloat16), fresh(*shape, dtype=torch.bfloat16)
        with torch.cuda.device(states.device):
            _pack[(batch * heads, blocks)](
                states, codes, steps, zeros, blocks, heads, *states.stride()[:3],
                width, triton.next_power_of_2(width if is_keys else width // groups),
                groups if is_keys else 1, 1 if is_keys else groups, bits, BLOCK, HALF, BYTES, is_keys,
            )  # fmt: skip
        made += [codes, steps, zeros]
    return made
