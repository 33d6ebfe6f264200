"""Routed experts on a CPU: rows sorted by expert, then one product per expert, or one padded product for all.

A stack's slices are taken by one `unbind` inside one autograd function: `weight[e]` in a loop would have autograd fill
a gradient of the whole stack for every expert. What a gradient of a stack costs beyond its products is memory that is
touched for the first time, so it comes in large pages.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from r1core.model.r1.huge_pages import empty_like
from r1core.model.r1.routed import LowRank, routed

EXCESS = 2.0
"""Rows of a padded product over rows that are needed, up to which it is taken."""
PIECE = 512
"""Rows that are taken through the gate at once."""
FEW = 16
"""Rows up to which they are computed one by one, without sorting or gathering, where no gradient is wanted."""


def experts_cpu(
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    low: LowRank | None = None,
) -> torch.Tensor:
    """`sum_k w_k down_e(silu(gate_e x) * up_e x)` over each token's experts e.

    Parameters
    ----------
    hidden : (N, H).
    chosen, weights : (N, K); an index of E or above has no expert here and adds nothing (expert parallel).
    gate_up, down : (E, 2 I, H) and (E, H, I), as the library stacks them.
    low : an adapter on both stacks.

    Returns
    -------
    (N, H) in the dtype of `hidden`.
    """
    adapted = () if low is None else low.trained
    if chosen.numel() <= FEW and not differentiated(hidden, weights, gate_up, down, *adapted):
        return _few(hidden, chosen, weights, gate_up, down, low)
    return routed(products(chosen, weights, len(down), gate_up.dtype, low), hidden, weights, gate_up, down, low)


def differentiated(*inputs: torch.Tensor) -> bool:
    """Whether a gradient of what comes of these may be asked for."""
    return torch.is_grad_enabled() and any(each.requires_grad for each in inputs)


def _few(
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    low: LowRank | None,
) -> torch.Tensor:
    out, experts = torch.zeros_like(hidden), len(down)
    slots = (chosen if low is None else low.slots(chosen)).tolist()
    rows = zip(hidden.unbind(0), out.unbind(0), chosen.tolist(), slots, weights.tolist(), strict=True)
    for row, said, ids, own, shares in rows:
        for expert, slot, share in zip(ids, own, shares, strict=True):
            if expert >= experts:
                continue
            both = torch.mv(gate_up[expert], row)
            if low is not None:
                a_in, b_in, a_out, b_out = low.slices[slot]
                both.addmv_(b_in, torch.mv(a_in, row))
            gate, up = both.chunk(2)
            active = functional.silu(gate, inplace=True).mul_(up)
            said.addmv_(down[expert], active, alpha=share)
            if low is not None:
                said.addmv_(b_out, torch.mv(a_out, active), alpha=share)
    return out


class _Sorted:
    """What both ways share: where rows stand, and what happens between the products.

    Parameters
    ----------
    order : (S,) which of the N K rows stands at each place.
    used : (S,) bool, places that only fill up are False.
    apart : products of the same rows for each adapter apart; None where there is one.
    """

    apart: _OneByOne | _Padded

    def __init__(self, order: torch.Tensor, used: torch.Tensor, weights: torch.Tensor) -> None:
        self.shape, (tokens, per) = weights.shape, weights.shape
        self.token, self.place = order // per, order.new_empty(tokens * per)
        self.place[order[used]] = torch.arange(len(order), device=order.device)[used]
        self.shares = weights.detach().flatten().index_select(0, order) * used

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens (N, H), each at the places of its experts: (S, H)."""
        return hidden.index_select(0, self.token)

    def home(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (S, H), summed at their tokens: (N, H)."""
        return rows.index_select(0, self.place).unflatten(0, self.shape).sum(1)

    def shares_home(self, shares: torch.Tensor) -> torch.Tensor:
        """Numbers of rows (S,) at their tokens: (N, K)."""
        return shares.index_select(0, self.place).view(self.shape)

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        """`silu(gate) * up * share` of (S, 2 I): (S, I)."""
        gate, up = both.chunk(2, -1)
        return functional.silu(gate).mul_(up).mul_(self.shares[:, None])

    def gate_back(self, both: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `r1core.model.r1.routed.Products`; in pieces that stay in the processor's cache."""
        active, by_both, by_share = torch.empty_like(slope), torch.empty_like(both), torch.empty_like(self.shares)
        for start in range(0, len(both), PIECE):
            at = slice(start, start + PIECE)
            gate, up = both[at].chunk(2, -1)
            by_gate, by_up = by_both[at].chunk(2, -1)
            by_active, share, out = slope[at], self.shares[at, None], active[at]
            sigmoid = gate.sigmoid()
            silu = gate * sigmoid
            torch.mul(silu, up, out=out)
            torch.sum(out * by_active, -1, out=by_share[at])
            out.mul_(share)
            by_active.mul_(share)
            torch.mul(by_active, silu, out=by_up)
            sigmoid.addcmul_(silu, 1 - sigmoid)  # d silu = sigmoid + silu (1 - sigmoid)
            torch.mul(by_active.mul_(up), sigmoid, out=by_gate)
        return active, by_both, by_share


class _OneByOne(_Sorted):
    """Products of each expert's rows in a loop; rows stand sorted, without gaps."""

    def __init__(self, order: torch.Tensor, counts: list[int], weights: torch.Tensor) -> None:
        super().__init__(order, torch.ones_like(order, dtype=torch.bool), weights)
        self.counts, self.whole, self.apart = counts, sum(counts) == len(order), self

    def _parts(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """Each expert's rows; slicing them one by one would cost as much as a thin product."""
        return (rows if self.whole else rows[: sum(self.counts)]).split(self.counts)

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e`; rows without an expert stay zero."""
        shape = (len(rows), stack.shape[-1])
        out = rows.new_empty(shape) if self.whole else rows.new_zeros(shape)
        for part, weight, said in zip(self._parts(rows), stack.unbind(0), self._parts(out), strict=True):
            torch.mm(part, weight, out=said)
        return out

    def add(self, out: torch.Tensor, rows: torch.Tensor, stack: torch.Tensor) -> None:
        """Add `rows_e stack_e` to `out`."""
        for part, weight, said in zip(self._parts(rows), stack.unbind(0), self._parts(out), strict=True):
            said.addmm_(part, weight)

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`, whatever rows an expert got."""
        gradient = empty_like(like)
        for one, other, out in zip(self._parts(left), self._parts(right), gradient.unbind(0), strict=True):
            torch.mm(one.t(), other, out=out)
        return gradient


class _Padded(_Sorted):
    """The same in one batched product: every expert has as many rows as the fullest, those in excess with no share."""

    def __init__(self, order: torch.Tensor, counts: list[int], weights: torch.Tensor) -> None:
        self.experts, most = len(counts), max(counts)
        count = torch.tensor(counts)
        start = count.cumsum(0) - count
        place = torch.arange(most)
        used = (place < count[:, None]).flatten()
        self.order = order[(start[:, None] + place).clamp(max=len(order) - 1).flatten()]
        super().__init__(self.order, used, weights)
        self.used, self.apart = used, self

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e`."""
        return torch.bmm(rows.unflatten(0, (self.experts, -1)), stack).flatten(0, 1)

    def add(self, out: torch.Tensor, rows: torch.Tensor, stack: torch.Tensor) -> None:
        """Add `rows_e stack_e` to `out`."""
        out.view(self.experts, -1, out.shape[-1]).baddbmm_(rows.unflatten(0, (self.experts, -1)), stack)

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`; the side that carries the shares is zero in the rows in excess."""
        one, other = (side.unflatten(0, (self.experts, -1)) for side in (left, right))
        return torch.bmm(one.mT, other, out=empty_like(like))


def products(
    chosen: torch.Tensor, weights: torch.Tensor, experts: int, dtype: torch.dtype, low: LowRank | None = None
) -> _OneByOne | _Padded:
    """How these rows' products are taken: where a processor computes in bf16, a call costs more than it computes."""
    adapters = 1 if low is None else low.adapters
    flat = (chosen if low is None else low.slots(chosen)).flatten()
    order = flat.argsort(stable=True)
    fine = torch.bincount(flat, minlength=experts * adapters)[: experts * adapters]
    counts = fine.view(experts, adapters).sum(1).tolist()
    cheap = dtype == torch.bfloat16 and flat.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    evenly = sum(counts) == len(flat) and max(counts) * experts <= EXCESS * len(flat)
    if cheap and evenly and adapters == 1:
        return _Padded(order, counts, weights)
    made = _OneByOne(order, counts, weights)
    if adapters > 1:
        made.apart = _OneByOne(order, fine.tolist(), weights)
    return made
