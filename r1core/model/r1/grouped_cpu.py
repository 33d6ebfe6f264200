"""Routed experts on a CPU: rows sorted by expert, then one product per expert, or a padded one for some of them.

A stack's slices are taken by one `unbind` inside one autograd function: `weight[e]` in a loop would have autograd fill
a gradient of the whole stack for every expert. What a gradient of a stack costs beyond its products is memory that is
touched for the first time, so it comes in large pages.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from r1core.model.r1.huge_pages import empty_like
from r1core.model.r1.routed import LowRank, Pair, Seen, routed

EXCESS = 2.0
"""Rows of a padded product over rows that are needed, up to which it is taken."""
RANGES = 8
"""Products that experts are padded in: fewer pad more, more cost more calls."""
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


class _Sorted(ABC):
    """What both ways share: where rows stand, and what happens between the products.

    Parameters
    ----------
    order : (S,) which of the N K rows stands at each place.
    used : (S,) bool, places that only fill up are False.
    apart : products of the same rows for each adapter apart; the same where there is one.
    """

    apart: _Sorted
    whole = True  # whether every row has an expert here
    _product: Callable[..., torch.Tensor]
    _add: Callable[..., torch.Tensor]

    def __init__(self, order: torch.Tensor, used: torch.Tensor, weights: torch.Tensor) -> None:
        self.shape, (tokens, per) = weights.shape, weights.shape
        self.token, self.place = order // per, order.new_empty(tokens * per)
        self.place[order[used]] = torch.arange(len(order), device=order.device)[used]
        self.shares = weights.detach().flatten().index_select(0, order) * used

    @abstractmethod
    def _parts(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """Rows (S, width), cut as `_stacks` cuts stacks."""

    @abstractmethod
    def _stacks(self, stack: torch.Tensor) -> Sequence[torch.Tensor]:
        """A stack (E, a, b), cut into what is taken at once."""

    def _multiply(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, *, added: bool = False) -> None:
        """Put the product of two parts into `out`, or add it."""
        if added:
            self._add(out, left, right)
        else:
            self._product(left, right, out=out)

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e` of rows (S, a) and a stack (E, a, b), (S, b); rows without an expert stay zero."""
        shape = (len(rows), stack.shape[-1])
        out = rows.new_empty(shape) if self.whole else rows.new_zeros(shape)
        for part, weight, said in zip(self._parts(rows), self._stacks(stack), self._parts(out), strict=True):
            self._multiply(part, weight, said)
        return out

    def add(self, out: torch.Tensor, rows: torch.Tensor, stack: torch.Tensor) -> None:
        """Add `rows_e stack_e` to `out`, (S, b), in place."""
        for part, weight, said in zip(self._parts(rows), self._stacks(stack), self._parts(out), strict=True):
            self._multiply(part, weight, said, added=True)

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`, (E, a, b) like `like`, whatever rows an expert got."""
        gradient = empty_like(like)
        for one, other, out in zip(self._parts(left), self._parts(right), self._stacks(gradient), strict=True):
            self._multiply(one.mT, other, out)
        return gradient

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens (N, H), each at the places of its experts: (S, H)."""
        return hidden.index_select(0, self.token)

    def home(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (S, H), summed at their tokens: (N, H)."""
        found = rows.index_select(0, self.place).unflatten(0, self.shape)
        return torch.add(*found.unbind(1)) if self.shape[1] == 2 else found.sum(1)  # a sum over two is slow

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

    def update(self, out: torch.Tensor, rows: torch.Tensor, pair: Pair, back: bool = False) -> torch.Tensor:
        """Add `rows_e A_e^T B_e^T` to `out`, or `rows_e B_e A_e`: the product with the first half, (S, r)."""
        first, second = (pair.up, pair.down) if back else (pair.down.mT, pair.up.mT)
        low = self.times(rows, first)
        self.add(out, low, second)
        return low

    def slopes(self, low: LowRank, seen: tuple[Seen, Seen]) -> tuple[torch.Tensor, ...]:
        """Gradients of `low.trained`."""
        assert low.learnt is not None
        found: list[torch.Tensor] = []
        for learnt, pair, one in zip(low.learnt, (low.gate_up, low.down), seen, strict=True):
            found.append(learnt.down_back(self.outer(one.by_low, one.rows, pair.down)))
            found.append(learnt.up_back(self.outer(one.by_out, one.low, pair.up)))
        return tuple(found)


class _OneByOne(_Sorted):
    """Products of each expert's rows in a loop; rows stand sorted, without gaps."""

    _product, _add = staticmethod(torch.mm), staticmethod(torch.Tensor.addmm_)

    def __init__(self, order: torch.Tensor, counts: list[int], weights: torch.Tensor) -> None:
        super().__init__(order, torch.ones_like(order, dtype=torch.bool), weights)
        self.counts, self.whole, self.apart = counts, sum(counts) == len(order), self

    def _parts(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """Each expert's rows; slicing them one by one would cost as much as a thin product."""
        return (rows if self.whole else rows[: sum(self.counts)]).split(self.counts)

    def _stacks(self, stack: torch.Tensor) -> Sequence[torch.Tensor]:
        """Each expert's slice."""
        return stack.unbind(0)


class _Padded(_Sorted):
    """The same in some batched products: an expert has as many rows as the fullest of its range.

    Those in excess have no share, so the side of an outer product that carries the shares is zero there.
    """

    _product, _add = staticmethod(torch.bmm), staticmethod(torch.Tensor.baddbmm_)

    def __init__(self, order: torch.Tensor, counts: list[int], weights: torch.Tensor) -> None:
        self.ranges, sizes = _ranges(counts)
        count, size = torch.tensor(counts), torch.tensor(sizes)
        start, first = count.cumsum(0) - count, size.cumsum(0) - size
        place = torch.arange(sum(sizes)) - first.repeat_interleave(size)
        order = order[(start.repeat_interleave(size) + place).clamp(max=len(order) - 1)]
        super().__init__(order, place < count.repeat_interleave(size), weights)
        self.apart = self

    def _parts(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Rows of each range, (experts, rows of each, width)."""
        lengths = [(stop - start) * most for start, stop, most in self.ranges]
        parts = zip(rows.split(lengths), self.ranges, strict=True)
        return [part.unflatten(0, (stop - start, most)) for part, (start, stop, most) in parts]

    def _stacks(self, stack: torch.Tensor) -> list[torch.Tensor]:
        """Slices of a stack for each range."""
        return [stack[start:stop] for start, stop, _ in self.ranges]


def _ranges(counts: list[int]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """First expert, end and rows of each range, and rows of each expert."""
    step = -(-len(counts) // RANGES)
    starts = range(0, len(counts), step)
    ranges = [(start, min(start + step, len(counts)), max(1, *counts[start : start + step], 0)) for start in starts]
    return ranges, [most for start, stop, most in ranges for _ in range(start, stop)]


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
    evenly = sum(counts) == len(flat) and sum(_ranges(counts)[1]) <= EXCESS * len(flat)
    if cheap and evenly and adapters == 1:
        return _Padded(order, counts, weights)
    made = _OneByOne(order, counts, weights)
    if adapters > 1:
        made.apart = _OneByOne(order, fine.tolist(), weights)
    return made
