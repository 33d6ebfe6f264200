"""PEFT's LoRA layer with the same mathematics in fewer passes over memory: a drop-in for training.

PEFT computes `base(x) + B(A(x)) * scaling` as five operations, each with a result of its own, and casts the input to
fp32 where the base is bf16. Here the low-rank product is added into the base's result by the matrix product itself,
forward and backward, in the base's dtype; the weights stay fp32 and get fp32 gradients.

T = tokens, I and O = input and output width, r = rank. Not covered, and left to PEFT's own forward: dropout, variants
(DoRA and others), merged or several adapters. Not for private training, whose per-sample gradients hook A and B.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn import functional


class _LowRankSum(torch.autograd.Function):
    """`x W^T + bias + scaling * (x A^T) B^T` with a frozen `W`; arXiv:2106.09685, equation 3."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """`x` (..., I), `weight` (O, I), `down` (r, I) fp32, `up` (O, r) fp32 -> (..., O)."""
        rows = x.reshape(-1, x.shape[-1])
        down, up = down.to(x.dtype), up.to(x.dtype)
        low = rows @ down.t()  # (T, r)
        out = functional.linear(rows, weight, bias)
        out.addmm_(low, up.t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x`, `down` and `up`."""
        rows, low, weight, down, up = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        back = (grad @ up).mul_(ctx.scaling)  # (T, r)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad @ weight).addmm_(back, down).view(ctx.shape)
        up_grad = (grad.t() @ low).mul_(ctx.scaling)
        return x_grad, None, None, (back.t() @ rows).float(), up_grad.float(), None


class FusedLinear(Linear):
    """`peft.tuners.lora.Linear` that takes the fused path where it means the same."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """PEFT's `forward`, (..., I) -> (..., O)."""
        names = self.active_adapters
        base = self.get_base_layer()
        plain = (
            len(names) == 1
            and names[0] in self.lora_A
            and not (args or kwargs or self.merged or self.disable_adapters or self.lora_variant)
            and not isinstance(self.lora_dropout[names[0]], torch.nn.Dropout)
            and x.dtype == base.weight.dtype
        )
        if not plain:
            return super().forward(x, *args, **kwargs)
        down, up = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        return _LowRankSum.apply(x, base.weight, base.bias, down, up, self.scaling[names[0]])
