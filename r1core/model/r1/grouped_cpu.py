"""Routed experts on a CPU: rows sorted by expert, then one product per expert, or one padded product for all.

A stack's slices are taken by one `unbind` inside one autograd function: `weight[e]` in a loop would have autograd fill
a gradient of the whole stack for every expert. What a gradient of a stack costs beyond its products is memory that is
touched for the first time, so it comes in large pages.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from r1core.model.r1.huge_pages import empty_like

EXCESS = 2.0
"""Rows of a padded product over rows that are needed, up to which it is taken."""
PIECE = 512
"""Rows that are taken through the gate at once."""
FEW = 16
"""Rows up to which they are computed one by one, without sorting or gathering, where no gradient is wanted."""


def experts_cpu(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """`sum_k w_k down_e(silu(gate_e x) * up_e x)` over each token's experts e.

    Parameters
    ----------
    hidden : (N, H).
    chosen, weights : (N, K); an index of E or above has no expert here and adds nothing (expert parallel).
    gate_up, down : (E, 2 I, H) and (E, H, I), as the library stacks them.

    Returns
    -------
    (N, H) in the dtype of `hidden`.
    """
    if chosen.numel() <= FEW and not differentiated(hidden, weights, gate_up, down):
        return _few(hidden, chosen, weights, gate_up, down)
    return _Experts.apply(hidden, chosen, weights, gate_up, down)


def differentiated(*inputs: torch.Tensor) -> bool:
    """Whether a gradient of what comes of these may be asked for."""
    return torch.is_grad_enabled() and any(each.requires_grad for each in inputs)


def _few(
    hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    out, experts = torch.zeros_like(hidden), len(down)
    rows = zip(hidden.unbind(0), out.unbind(0), chosen.tolist(), weights.tolist(), strict=True)
    for row, said, ids, shares in rows:
        for expert, share in zip(ids, shares, strict=True):
            if expert < experts:
                gate, up = torch.mv(gate_up[expert], row).chunk(2)
                said.addmv_(down[expert], functional.silu(gate, inplace=True).mul_(up), alpha=share)
    return out


class _OneByOne:
    """Products of each expert's rows in a loop; rows stand sorted, without gaps."""

    def __init__(self, order: torch.Tensor, counts: list[int]) -> None:
        self.order, self.used, self.spans = order, torch.ones_like(order, dtype=torch.bool), _spans(counts)
        self.whole = sum(counts) == len(order)

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e @ stack_e`; rows without an expert stay zero."""
        shape = (len(rows), stack.shape[-1])
        out = rows.new_empty(shape) if self.whole else rows.new_zeros(shape)
        for at, weight in zip(self.spans, stack.unbind(0), strict=True):
            if at is not None:
                torch.mm(rows[at], weight, out=out[at])
        return out

    def outer(self, left: torch.Tensor, right: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`: the gradient of a stack, whatever rows an expert got."""
        gradient = empty_like(stack)
        for at, out in zip(self.spans, gradient.unbind(0), strict=True):
            if at is None:
                out.zero_()
            else:
                torch.mm(left[at].t(), right[at], out=out)
        return gradient


class _Padded:
    """The same in one batched product: every expert has as many rows as the fullest, those in excess with no share."""

    def __init__(self, order: torch.Tensor, counts: list[int]) -> None:
        self.experts, most = len(counts), max(counts)
        count = torch.tensor(counts)
        start = count.cumsum(0) - count
        place = torch.arange(most)
        self.used = (place < count[:, None]).flatten()
        self.order = order[(start[:, None] + place).clamp(max=len(order) - 1).flatten()]

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e @ stack_e`."""
        return torch.bmm(rows.unflatten(0, (self.experts, -1)), stack).flatten(0, 1)

    def outer(self, left: torch.Tensor, right: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`; the side that carries the shares is zero in the rows in excess."""
        one, other = (side.unflatten(0, (self.experts, -1)) for side in (left, right))
        return torch.bmm(one.transpose(1, 2), other, out=empty_like(stack))


def _products(chosen: torch.Tensor, dtype: torch.dtype, experts: int) -> _OneByOne | _Padded:
    """How these rows' products are taken: where a processor computes in bf16, a call costs more than it computes."""
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=experts)[:experts].tolist()
    cheap = dtype == torch.bfloat16 and flat.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    padded = cheap and sum(counts) == len(flat) and max(counts) * experts <= EXCESS * len(flat)
    return _Padded(order, counts) if padded else _OneByOne(order, counts)


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
        """See `experts_cpu`."""
        products = _products(chosen, gate_up.dtype, len(down))
        order, used = products.order, products.used
        token, place = order // chosen.shape[-1], torch.empty(chosen.numel(), dtype=order.dtype, device=order.device)
        place[order[used]] = torch.arange(len(order), device=order.device)[used]
        rows, shares = hidden.index_select(0, token), weights.flatten().index_select(0, order) * used
        both = products.times(rows, gate_up.transpose(1, 2))
        gate, up = both.chunk(2, -1)
        out = products.times(functional.silu(gate).mul_(up).mul_(shares[:, None]), down.transpose(1, 2))
        ctx.save_for_backward(rows, shares, both, token, place, gate_up, down)
        ctx.products, ctx.shape = products, chosen.shape
        return _summed(out, place, chosen.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of everything but the choice; those of frozen stacks are not computed."""
        rows, shares, both, token, place, gate_up, down = ctx.saved_tensors
        products = ctx.products
        by_out = grads[0].index_select(0, token)
        active, by_both, by_share = _through_gate(both, products.times(by_out, down), shares)
        by_rows = products.times(by_both, gate_up)
        by_gate_up = products.outer(by_both, rows, gate_up) if ctx.needs_input_grad[3] else None
        by_down = products.outer(by_out, active, down) if ctx.needs_input_grad[4] else None
        by_weights = by_share.index_select(0, place).view(ctx.shape)
        return _summed(by_rows, place, ctx.shape), None, by_weights, by_gate_up, by_down


def _through_gate(
    both: torch.Tensor, by_active: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted activations (S, I), the gradient of both projections (S, 2 I), and that of the shares (S,).

    In pieces that stay in the processor's cache; `by_active` is overwritten.
    """
    active, by_both, by_share = torch.empty_like(by_active), torch.empty_like(both), torch.empty_like(shares)
    for start in range(0, len(both), PIECE):
        at = slice(start, start + PIECE)
        gate, up = both[at].chunk(2, -1)
        by_gate, by_up = by_both[at].chunk(2, -1)
        slope, share, out = by_active[at], shares[at, None], active[at]
        sigmoid = gate.sigmoid()
        silu = gate * sigmoid
        torch.mul(silu, up, out=out)
        torch.sum(out * slope, -1, out=by_share[at])
        out.mul_(share)
        slope.mul_(share)
        torch.mul(slope, silu, out=by_up)
        sigmoid.addcmul_(silu, 1 - sigmoid)  # d silu = sigmoid + silu (1 - sigmoid)
        torch.mul(slope.mul_(up), sigmoid, out=by_gate)
    return active, by_both, by_share


def _spans(counts: list[int]) -> list[slice | None]:
    """Where each expert's rows stand; None for an expert without any."""
    spans: list[slice | None] = []
    start = 0
    for count in counts:
        spans.append(slice(start, start + count) if count else None)
        start += count
    return spans


def _summed(rows: torch.Tensor, place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Rows, sorted by expert, back to their tokens and summed over each token's experts: (N, H)."""
    return rows.index_select(0, place).unflatten(0, shape).sum(1)
