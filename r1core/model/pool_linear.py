"""A linear layer under a pool of low-rank adapters, each token under those of its task, in one pass for all tasks.

`y = base(x) + scale * sum_n g_n(task) * B_n (A_n x)`. Adapters of one cohort (those that were added together) stand
stacked, so that a mixture is two products with the gate in between; hard routing takes, for each run of a task's
tokens, that task's slice of the stacks. As in `r1core.model.fused_lora` the low-rank product is added into the base's
result by the matrix product itself, in the dtype of the base; the weights stay fp32 and get fp32 gradients.

A cohort that no task of a pass can reach is left out of it, so adding one changes no bit of what others compute.

T = tokens, I and O = input and output width, r = rank, n = adapters of a cohort. Not covered: dropout, a layer that is
called on a part of the sequence's tokens (routed experts); it is refused when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from r1core.api import R1Error
from r1core.model.fused_lora import Casting, scaled, wide
from r1core.model.own_adapter import AroundLinear


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens `[start, end)`, all of which take one adapter: number `index` of cohort `cohort`."""

    cohort: int
    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Pass:
    """What the adapters do in one forward pass over `length` tokens.

    `cohorts` : those that take part. `gates` : one `(T, n)` for each of them; empty under `slices`.
    """

    length: int
    cohorts: tuple[int, ...]
    gates: tuple[torch.Tensor, ...] = ()
    slices: tuple[Slice, ...] = ()


@dataclass(slots=True)
class Current:
    """The pass that the model is in; None while the adapters are off. All layers of a pool look here."""

    now: Pass | None = None


class PoolLinear(Casting, AroundLinear):
    """A linear layer and its adapters: (..., I) -> (..., O).

    `pool_A` : (n * r, I) and `pool_B` : (O, n * r) fp32, of each cohort. Those of a frozen cohort require no gradient.
    """

    def __init__(self, base: nn.Module, rank: int, scale: float, current: Current) -> None:
        super().__init__()
        self.base_layer, self.rank, self.scale, self.current = base, rank, scale, current
        self._transposed = not isinstance(base, nn.Linear)
        self.pool_A, self.pool_B = nn.ParameterList(), nn.ParameterList()

    def grow(self, size: int) -> None:
        """Add a cohort of so many untrained adapters; those that are there are no longer trained."""
        self.requires_grad_(False)
        outputs, inputs = reversed(self.weight.shape) if self._transposed else self.weight.shape
        down, up = torch.empty(size * self.rank, inputs), torch.zeros(outputs, size * self.rank)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as LoRA's: the bound depends on I only
        self.pool_A.append(nn.Parameter(down.to(self.weight.device)))
        self.pool_B.append(nn.Parameter(up.to(self.weight.device)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Raises
        ------
        R1Error : when it is given other tokens than the sequence's.
        """
        now = self.current.now
        if now is None:
            out: torch.Tensor = self.base_layer(x)
            return out
        if x.numel() != now.length * x.shape[-1]:
            found = x.numel() // x.shape[-1]
            raise R1Error(f"a pool's layer was given {found} of {now.length} tokens: it cannot tell their tasks")
        weight = self.weight.t() if self._transposed else self.weight
        weights = [w for c in now.cohorts for w in (self.pool_A[c], self.pool_B[c])]
        if self.casts is None:
            casts = [w.detach().to(weight.dtype) for w in weights]
        else:
            casts = [self.casts[2 * c + half] for c in now.cohorts for half in (0, 1)]
        given = (x, weight, self.base_layer.bias, self.scale, self.rank)
        if now.slices:
            return _Routed.apply(*given, now, *weights, *casts)
        return _Mixed.apply(*given, now, *now.gates, *weights, *casts)

    def adapter_weights(self) -> list[torch.Tensor]:
        """A and B of each cohort."""
        return [w for pair in zip(self.pool_A, self.pool_B, strict=True) for w in pair]

    def base_dtype(self) -> torch.dtype:
        """Of the base layer's weight."""
        return self.weight.dtype


def _weighed(low: torch.Tensor, gate: torch.Tensor, rank: int) -> torch.Tensor:
    """Activations (T, n * r), each adapter's times its gate (T, n)."""
    return (low.view(len(low), -1, rank) * gate[:, :, None]).view_as(low)


class _Mixed(torch.autograd.Function):
    """Every token under all adapters of the cohorts, weighted."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        rank: int,
        now: Pass,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        """`tensors` : gates (T, n), then A and B of each cohort, then both in x's dtype -> (..., O)."""
        number = len(now.cohorts)
        gates, casts = tensors[:number], tensors[3 * number :]
        rows = x.reshape(-1, x.shape[-1])
        out = functional.linear(rows, weight, bias)
        lows = []
        for gate, down, up in zip(gates, casts[::2], casts[1::2], strict=True):
            low = scaled(rows, down.t(), scale)
            out.addmm_(_weighed(low, gate.to(low.dtype), rank), up.t())
            lows.append(low)
        ctx.save_for_backward(rows, weight, *gates, *lows, *casts)
        ctx.scale, ctx.rank, ctx.shape, ctx.number = scale, rank, x.shape, number
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x`, of the gates, and of A and B where they are trained."""
        number, rank = ctx.number, ctx.rank
        rows, weight, *saved = ctx.saved_tensors
        gates, lows, casts = saved[:number], saved[number : 2 * number], saved[2 * number :]
        grad = grads[0].reshape(-1, weight.shape[0])
        wanted = ctx.needs_input_grad
        by_rows = grad @ weight if wanted[0] else None
        by_gates: list[torch.Tensor | None] = []
        by_weights: list[torch.Tensor | None] = []
        for index, (gate, low, down, up) in enumerate(zip(gates, lows, casts[::2], casts[1::2], strict=True)):
            cast = gate.to(grad.dtype)
            by_mixed = grad @ up  # (T, n * r)
            product = (by_mixed * low).view(len(low), -1, rank)
            by_gates.append(product.sum(-1, dtype=gate.dtype) if wanted[6 + index] else None)
            by_low = _weighed(by_mixed, cast, rank).mul_(ctx.scale)
            if by_rows is not None:
                by_rows.addmm_(by_low, down)
            trained = wanted[6 + number + 2 * index]
            by_weights.append(wide(by_low, rows) if trained else None)
            by_weights.append(wide(grad, _weighed(low, cast, rank)) if trained else None)
        spread = by_rows.view(ctx.shape) if by_rows is not None else None
        return spread, None, None, None, None, None, *by_gates, *by_weights, *[None] * len(casts)


class _Routed(torch.autograd.Function):
    """Every run of tokens under one adapter."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        rank: int,
        now: Pass,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        """`tensors` : A and B of each cohort, then both in x's dtype -> (..., O)."""
        casts = tensors[2 * len(now.cohorts) :]
        rows = x.reshape(-1, x.shape[-1])
        out = functional.linear(rows, weight, bias)
        low = rows.new_empty(len(rows), rank)
        for one in now.slices:
            down, up = _adapter(casts, now, one, rank)
            part = low[one.start : one.end]
            torch.addmm(part, rows[one.start : one.end], down.t(), beta=0, alpha=scale, out=part)
            out[one.start : one.end].addmm_(part, up.t())
        ctx.save_for_backward(rows, weight, low, *casts)
        ctx.scale, ctx.rank, ctx.shape, ctx.now = scale, rank, x.shape, now
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x`, and of A and B where they are trained; zero for adapters without a token."""
        rank, now = ctx.rank, ctx.now
        rows, weight, low, *casts = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        wanted = ctx.needs_input_grad
        by_rows = grad @ weight if wanted[0] else None
        by_weights = [
            torch.zeros_like(cast, dtype=torch.float32) if wanted[6 + i] else None for i, cast in enumerate(casts)
        ]
        for one in now.slices:
            at = slice(one.start, one.end)
            down, up = _adapter(casts, now, one, rank)
            by_low = scaled(grad[at], up, ctx.scale)  # (run, r)
            if by_rows is not None:
                by_rows[at].addmm_(by_low, down)
            by_down, by_up = _adapter(by_weights, now, one, rank)
            if by_down is not None and by_up is not None:
                by_down += wide(by_low, rows[at])
                by_up += wide(grad[at], low[at])
        spread = by_rows.view(ctx.shape) if by_rows is not None else None
        return spread, None, None, None, None, None, *by_weights, *[None] * len(casts)


def _adapter(stacks: Sequence[Any], now: Pass, one: Slice, rank: int) -> tuple[Any, Any]:
    """A slice's own A (r, I) and B (O, r) as views of its cohort's; None where the stack is None."""
    place, own = 2 * now.cohorts.index(one.cohort), slice(one.index * rank, (one.index + 1) * rank)
    down, up = stacks[place], stacks[place + 1]
    return down if down is None else down[own], up if up is None else up[:, own]
