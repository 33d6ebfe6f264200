"""Routed experts as one differentiable step, over products that a CPU or a GPU takes in its own way.

Rows are sorted by expert; an expert's weight is laid on its activation before the second product, so what comes back
is summed as it is and the weight's gradient falls out of the gate's.

A low-rank update of both stacks (LoRA, E. Hu et al., arXiv:2106.09685) is computed in its factors, `(x A_e^T) B_e^T`
for the rows of expert e, and added to what the frozen stack gives: no stack is ever updated, and dropout between x and
A is possible. Where tokens have adapters of their own, rows are sorted by expert and then by adapter.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts, P = adapters,
r = rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch


class Pair(NamedTuple):
    """A low-rank update of each slice of a stack, for each adapter, in the stack's dtype.

    Parameters
    ----------
    down : (E P, r, in), times alpha over rank; an expert's adapters stand side by side.
    up : (E P, out, r).
    """

    down: torch.Tensor
    up: torch.Tensor


class Learnt(NamedTuple):
    """The trained weights that a pair is made of, as PEFT lays them out.

    Parameters
    ----------
    down : (E r, in) fp32.
    up : (out, r E) fp32.
    scaling : alpha over rank.
    """

    down: torch.Tensor
    up: torch.Tensor
    scaling: float

    def pair(self, experts: int, dtype: torch.dtype) -> Pair:
        """As products take it."""
        down, up = self.down.detach(), self.up.detach()
        down = torch.mul(down, self.scaling, out=torch.empty_like(down, dtype=dtype))
        turned = up.reshape(-1, experts).t()  # one plain transposition, which torch does in blocks
        up = torch.empty_like(turned, dtype=dtype, memory_format=torch.contiguous_format).copy_(turned)
        return Pair(down.unflatten(0, (experts, -1)), up.unflatten(1, (len(self.up), -1)))

    def down_back(self, slope: torch.Tensor) -> torch.Tensor:
        """The gradient of `down` from that of the pair's."""
        return slope.flatten(0, 1).to(self.down.dtype).mul_(self.scaling)

    def up_back(self, slope: torch.Tensor) -> torch.Tensor:
        """The gradient of `up` from that of the pair's."""
        return slope.flatten(1).t().to(self.up.dtype).reshape(self.up.shape)


@dataclass(frozen=True)
class LowRank:
    """LoRA on both stacks.

    Parameters
    ----------
    gate_up, down : the updates of the two stacks.
    adapters : P.
    sample : (N,) int64, which adapter each token has; None where there is one.
    learnt : what the two are made of, where that is trained; one adapter only.
    dropout : share of A's inputs that are set to zero.
    """

    gate_up: Pair
    down: Pair
    adapters: int = 1
    sample: torch.Tensor | None = None
    learnt: tuple[Learnt, Learnt] | None = None
    dropout: float = 0.0

    @staticmethod
    def of(gate_up: Learnt, down: Learnt, experts: int, dtype: torch.dtype, dropout: float = 0.0) -> LowRank:
        """One adapter that is trained."""
        pairs = gate_up.pair(experts, dtype), down.pair(experts, dtype)
        return LowRank(*pairs, learnt=(gate_up, down), dropout=dropout)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """A and B of the one stack, then of the other."""
        return *self.gate_up, *self.down

    @property
    def trained(self) -> tuple[torch.Tensor, ...]:
        """The weights of their own that a gradient may be asked for."""
        return () if self.learnt is None else tuple(each for one in self.learnt for each in one[:2])

    @cached_property
    def slices(self) -> list[tuple[torch.Tensor, ...]]:
        """A and B of the one stack, then of the other, for each slot."""
        return list(zip(*(half.unbind(0) for half in self.tensors), strict=True))

    @property
    def rank(self) -> int:
        """r."""
        return self.gate_up.up.shape[-1]

    def slots(self, chosen: torch.Tensor) -> torch.Tensor:
        """Which slice of the pairs each of a token's experts stands for, (N, K)."""
        if self.sample is None:
            return chosen
        return chosen * self.adapters + self.sample[:, None]


class Updates(Protocol):
    """Products of sorted rows with the narrow stacks of low-rank updates, told apart by adapter too."""

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e` of rows (S, a) and a stack (E P, a, b): (S, b)."""

    def add(self, out: torch.Tensor, rows: torch.Tensor, stack: torch.Tensor) -> None:
        """Add `rows_e stack_e` to `out`, (S, b), in place."""

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`, (E P, a, b) like `like`, whose dtype may be narrower."""


class Products(Protocol):
    """Rows of one pass in the order of their experts, and products of them with whole stacks."""

    @property
    def apart(self) -> Updates:
        """The same rows for low-rank updates."""

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens (N, H), each at the places of its experts: (S, H)."""

    def home(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (S, H), summed at their tokens: (N, H)."""

    def shares_home(self, shares: torch.Tensor) -> torch.Tensor:
        """Numbers of rows (S,) at their tokens: (N, K)."""

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e` of rows (S, a) and a stack (E, a, b): (S, b)."""

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`, the gradient of a stack of the form of `like`, (E, a, b)."""

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        """`silu(gate) * up * share` of (S, 2 I): (S, I)."""

    def gate_back(self, both: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weighted activations (S, I), gradients of both projections (S, 2 I) and shares (S,); `slope` is used up."""


def routed(
    products: Products,
    hidden: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    low: LowRank | None = None,
) -> torch.Tensor:
    """`sum_k w_k down_e(silu(gate_e x) * up_e x)` over each token's experts e, (N, H).

    Parameters
    ----------
    products : of these tokens; it holds the weights by which they count.
    weights : (N, K), for their gradient.
    """
    out: torch.Tensor = _Experts.apply(
        products, low, hidden, weights, gate_up, down, *(() if low is None else low.trained)
    )
    return out


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Products, low: LowRank | None, *given: torch.Tensor) -> torch.Tensor:
        """See `routed`; `given` ends with the weights of the adapter that are trained."""
        hidden, _, gate_up, down = given[:4]
        rows = products.rows(hidden)
        both = products.times(rows, gate_up.mT)
        inner = None if low is None else _update(products, both, rows, low.gate_up, low.dropout)
        active = products.gate(both)
        out = products.times(active, down.mT)
        outer = None if low is None else _update(products, out, active, low.down, low.dropout)
        ctx.save_for_backward(rows, both, gate_up, down)
        ctx.products, ctx.low, ctx.updates = products, low, (inner, outer)
        return products.home(out)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of everything but the choice; those of frozen weights are not computed."""
        rows, both, gate_up, down = ctx.saved_tensors
        products, low, (inner, outer), wanted = ctx.products, ctx.low, ctx.updates, ctx.needs_input_grad[2:]
        by_out = products.rows(grads[0])
        slope = products.times(by_out, down)
        by_low = None if low is None else _back(products, slope, by_out, low.down, outer, low.dropout)
        active, by_both, by_share = products.gate_back(both, slope)
        slopes = _slopes(products, low, 1, by_low, active, by_out, outer, wanted[6:])
        by_down = products.outer(by_out, active, down) if wanted[3] else None
        by_rows = products.times(by_both, gate_up)
        by_low = None if low is None else _back(products, by_rows, by_both, low.gate_up, inner, low.dropout)
        slopes = _slopes(products, low, 0, by_low, rows, by_both, inner, wanted[4:]) + slopes
        by_gate_up = products.outer(by_both, rows, gate_up) if wanted[2] else None
        by_hidden, by_weights = products.home(by_rows), products.shares_home(by_share)
        return None, None, by_hidden, by_weights, by_gate_up, by_down, *slopes


class _Update(NamedTuple):
    """What a pass keeps of a low-rank update: its activations (S, r), and which inputs dropout kept."""

    low: torch.Tensor
    kept: torch.Tensor | None


def _update(products: Products, out: torch.Tensor, rows: torch.Tensor, pair: Pair, dropout: float) -> _Update:
    """Add `dropout(rows) A^T B^T` to `out`."""
    kept = torch.empty_like(rows, dtype=torch.bool).bernoulli_(1 - dropout) if dropout else None
    low = products.apart.times(_dropped(rows, kept, dropout), pair.down.mT)
    products.apart.add(out, low, pair.up.mT)
    return _Update(low, kept)


def _back(
    products: Products, by_rows: torch.Tensor, by_out: torch.Tensor, pair: Pair, update: _Update, dropout: float
) -> torch.Tensor:
    """The gradient of the low-rank activations (S, r); that of what went into A is added to `by_rows`."""
    by_low = products.apart.times(by_out, pair.up)
    if update.kept is None:
        products.apart.add(by_rows, by_low, pair.down)
    else:
        by_rows += _dropped(products.apart.times(by_low, pair.down), update.kept, dropout)
    return by_low


def _slopes(
    products: Products,
    low: LowRank | None,
    stack: int,
    by_low: torch.Tensor | None,
    rows: torch.Tensor,
    by_out: torch.Tensor,
    update: _Update | None,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of the trained A and B of one stack; `rows` went into A, and `by_out` is the gradient behind B."""
    if low is None or low.learnt is None or by_low is None or update is None:
        return ()
    learnt, pair = low.learnt[stack], (low.gate_up, low.down)[stack]
    seen = _dropped(rows, update.kept, low.dropout)
    by_down = learnt.down_back(products.apart.outer(by_low, seen, pair.down)) if wanted[0] else None
    by_up = learnt.up_back(products.apart.outer(by_out, update.low, pair.up)) if wanted[1] else None
    return by_down, by_up


def _dropped(rows: torch.Tensor, kept: torch.Tensor | None, dropout: float) -> torch.Tensor:
    return rows if kept is None else rows * kept * (1 / (1 - dropout))
