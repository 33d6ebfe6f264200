"""Triton kernels that lay an expert adapter out for its products, and its gradients as PEFT has the weights.

PEFT keeps the expert innermost in B, so that one expert's B lies all over the tensor: it is turned once, in blocks,
for both stacks in one launch.

E = experts, R = rank, I, O = widths that a stack takes and gives.
"""

# mypy: disable-error-code="no-untyped-def"
# Triton reads the annotations of a kernel itself, and takes none but its own.

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from r1core.model.r1.launch import Kernel, parts

SIDE = 64
"""Side of a block that is turned; a copy takes as many numbers."""


@triton.jit
def _turn(source, target, block, M, N, SIDE: tl.constexpr):
    """One block of (M, N) into (N, M)."""
    across = (N + SIDE - 1) // SIDE
    row = (block // across) * SIDE + tl.arange(0, SIDE)
    column = (block % across) * SIDE + tl.arange(0, SIDE)
    inside = (row < M)[:, None] & (column < N)[None, :]
    x = tl.load(source + row[:, None].to(tl.int64) * N + column[None, :], inside, 0.0)
    tl.store(target + column[None, :].to(tl.int64) * M + row[:, None], x, inside)


@triton.jit
def _scaled(source, target, block, count, scale, SIDE: tl.constexpr):
    """One block of a copy, times `scale`."""
    at = block.to(tl.int64) * SIDE * SIDE + tl.arange(0, SIDE * SIDE)
    tl.store(target + at, tl.load(source + at, at < count, 0.0).to(tl.float32) * scale, at < count)


@triton.jit
def _lay(down0, up0, down1, up1, laid_down0, laid_up0, laid_down1, laid_up1,
         E, M0, M1, N0, N1, scale0, scale1, SIDE: tl.constexpr) -> None:  # fmt: skip
    """A (E R I) of each stack, times its scale; B (O R, E) of each stack as (E, O R); M = O R, N = E R I."""
    block = tl.program_id(0)
    across = (E + SIDE - 1) // SIDE
    turned0 = across * ((M0 + SIDE - 1) // SIDE)
    turned1 = turned0 + across * ((M1 + SIDE - 1) // SIDE)
    copied0 = turned1 + (N0 + SIDE * SIDE - 1) // (SIDE * SIDE)
    if block < turned0:
        _turn(up0, laid_up0, block, M0, E, SIDE)
    elif block < turned1:
        _turn(up1, laid_up1, block - turned0, M1, E, SIDE)
    elif block < copied0:
        _scaled(down0, laid_down0, block - turned1, N0, scale0, SIDE)
    else:
        _scaled(down1, laid_down1, block - copied0, N1, scale1, SIDE)


@triton.jit
def _turn_back(laid0, laid1, up0, up1, E, M0, M1, SIDE: tl.constexpr) -> None:
    """(E, O R) of each stack as B (O R, E); M = O R."""
    block = tl.program_id(0)
    turned0 = ((E + SIDE - 1) // SIDE) * ((M0 + SIDE - 1) // SIDE)
    if block < turned0:
        _turn(laid0, up0, block, E, M0, SIDE)
    else:
        _turn(laid1, up1, block - turned0, E, M1, SIDE)


_laying, _turning_back = Kernel(_lay, num_warps=4), Kernel(_turn_back, num_warps=4)


def lay(
    weights: Sequence[torch.Tensor], scales: Sequence[float], experts: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """As `r1core.model.r1.routed.Learnt.pair` of two stacks.

    Parameters
    ----------
    weights : A, (E R, I), and B, (O, R E), of each stack.
    scales : what each A is multiplied by.

    Returns
    -------
    (E, R, I) and (E, O, R) of each stack.
    """
    made = []
    for half, other in ((weights[0], weights[1]), (weights[2], weights[3])):
        (ranks, wide), out = half.shape, other.shape[0]
        made.append(half.new_empty((experts, ranks // experts, wide), dtype=dtype))
        made.append(other.new_empty((experts, out, ranks // experts), dtype=dtype))
    copied, turned, copied_other, turned_other = (half.numel() for half in made)
    turned, turned_other = turned // experts, turned_other // experts
    _laying(
        (_blocks(experts, turned, turned_other) + parts(copied, SIDE**2) + parts(copied_other, SIDE**2), 1, 1),
        (*[half.contiguous() for half in weights], *made),
        (experts, turned, turned_other, copied, copied_other, float(scales[0]), float(scales[1])),
        (SIDE,),
    )
    return made


def turn_back(
    slopes: tuple[torch.Tensor, torch.Tensor], likes: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients (E, O, R) of B of each stack as PEFT has the weights `likes`, (O, R E)."""
    experts = slopes[0].shape[0]
    made, other = (torch.empty_like(like, memory_format=torch.contiguous_format) for like in likes)
    turned, turned_other = made.numel() // experts, other.numel() // experts
    _turning_back(
        (_blocks(experts, turned, turned_other), 1, 1),
        (*slopes, made, other),
        (experts, turned, turned_other),
        (SIDE,),
    )
    return made, other


def _blocks(experts: int, turned: int, turned_other: int) -> int:
    """Blocks of (E, M) of each of two stacks."""
    return parts(experts, SIDE) * (parts(turned, SIDE) + parts(turned_other, SIDE))
