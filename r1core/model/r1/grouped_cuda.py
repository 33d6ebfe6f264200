"""Routed experts on a GPU: torch's grouped matrix products with fused kernels between them.

The weight of an expert is laid on its activation before the second product, so what comes back is summed as it is and
the weight's gradient falls out of the gate's; nothing waits for the host.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts.
Not covered: widths that are no multiple of 8 and fp32, which `experts_cpu`'s plain products compute here too.
"""

from __future__ import annotations

from typing import Any

import torch

from r1core.model.r1.grouped_cpu import differentiated, experts_cpu
from r1core.model.r1.triton_few import few
from r1core.model.r1.triton_rows import gate, gate_back, home, sort_by_expert

FEW = 32
"""Tokens up to which, without gradients, experts' weights are read where they lie."""
ALIGNED = 8
"""Elements of two bytes in the 16 bytes that a grouped product wants rows to start at."""


def experts_cuda(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """As `r1core.model.r1.grouped_cpu.experts_cpu`, on a GPU."""
    if gate_up.dtype != torch.bfloat16 or gate_up.shape[-1] % ALIGNED or down.shape[-1] % ALIGNED:
        return experts_cpu(hidden, chosen, weights, gate_up, down)
    hidden = hidden.to(gate_up.dtype)
    if len(hidden) <= FEW and not differentiated(hidden, weights, gate_up, down):
        return few(hidden, chosen, weights, gate_up, down)
    return _Experts.apply(hidden, chosen, weights.to(hidden.dtype), gate_up, down)


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        chosen: torch.Tensor,
        weights: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        """See `experts_cuda`."""
        place, token, shares, offsets = sort_by_expert(chosen, weights, len(down))
        rows = hidden.index_select(0, token)
        both = torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=offsets)
        out = torch._grouped_mm(gate(both, shares), down.transpose(1, 2), offs=offsets)
        ctx.save_for_backward(rows, shares, both, token, place, offsets, gate_up, down)
        ctx.shape = chosen.shape
        return home(out, place, offsets[-1:], chosen.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of everything but the choice; those of frozen stacks are not computed."""
        rows, shares, both, token, place, offsets, gate_up, down = ctx.saved_tensors
        by_out = grads[0].index_select(0, token)
        by_active = torch._grouped_mm(by_out, down, offs=offsets)
        active, by_both, by_share = gate_back(both, shares, by_active)
        by_down = torch._grouped_mm(by_out.t(), active, offs=offsets) if ctx.needs_input_grad[4] else None
        by_rows = torch._grouped_mm(by_both, gate_up, offs=offsets)
        by_gate_up = torch._grouped_mm(by_both.t(), rows, offs=offsets) if ctx.needs_input_grad[3] else None
        inside = place < offsets[-1]
        by_weights = torch.where(inside, by_share.index_select(0, place), 0).view(ctx.shape)
        return home(by_rows, place, offsets[-1:], ctx.shape[-1]), None, by_weights, by_gate_up, by_down
