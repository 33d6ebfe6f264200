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
        if gate_up.down.is_cuda:
            from r1core.model.r1.triton_lay import lay  # Triton is there where a GPU is

            weights = gate_up.down, gate_up.up, down.down, down.up
            halves = lay(weights, (gate_up.scaling, down.scaling), experts, dtype)
            pairs = Pair(halves[0], halves[1]), Pair(halves[2], halves[3])
        else:
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


class Seen(NamedTuple):
    """What the gradients of A and B of one stack are made of.

    Parameters
    ----------
    by_low : (S, r), the gradient behind A.
    rows : (S, in), what went into A.
    low : (S, r), what went into B.
    by_out : (S, out), the gradient behind B.
    """

    by_low: torch.Tensor
    rows: torch.Tensor
    low: torch.Tensor
    by_out: torch.Tensor


class Updates(Protocol):
    """Products of sorted rows with the narrow stacks of low-rank updates, told apart by adapter too."""

    def update(self, out: torch.Tensor, rows: torch.Tensor, pair: Pair, back: bool = False) -> torch.Tensor:
        """Add `rows_e A_e^T B_e^T` of rows (S, in) to `out`, (S, out), in place: `rows_e A_e^T`, (S, r).

        `back` : add `rows_e B_e A_e` of rows (S, out) to `out`, (S, in): `rows_e B_e`.
        """

    def slopes(self, low: LowRank, seen: tuple[Seen, Seen]) -> tuple[torch.Tensor, ...]:
        """Gradients of `low.trained`, of what the one stack saw and what the other."""


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
        by_outer = None if low is None else _back(products, slope, by_out, low.down, outer, low.dropout)
        active, by_both, by_share = products.gate_back(both, slope)
        by_down = products.outer(by_out, active, down) if wanted[3] else None
        by_rows = products.times(by_both, gate_up)
        by_inner = None if low is None else _back(products, by_rows, by_both, low.gate_up, inner, low.dropout)
        by_gate_up = products.outer(by_both, rows, gate_up) if wanted[2] else None
        by_adapter: tuple[torch.Tensor | None, ...] = (None,) * len(wanted[4:])
        if any(wanted[4:]) and by_inner is not None and by_outer is not None:
            seen = (
                Seen(by_inner, _dropped(rows, inner.kept, low.dropout), inner.low, by_both),
                Seen(by_outer, _dropped(active, outer.kept, low.dropout), outer.low, by_out),
            )
            by_adapter = products.apart.slopes(low, seen)
        by_hidden, by_weights = products.home(by_rows), products.shares_home(by_share)
        return None, None, by_hidden, by_weights, by_gate_up, by_down, *by_adapter


class _Update(NamedTuple):
    """What a pass keeps of a low-rank update: its activations (S, r), and which inputs dropout kept."""

    low: torch.Tensor
    kept: torch.Tensor | None


def _update(products: Products, out: torch.Tensor, rows: torch.Tensor, pair: Pair, dropout: float) -> _Update:
    """Add `dropout(rows) A^T B^T` to `out`."""
    kept = torch.empty_like(rows, dtype=torch.bool).bernoulli_(1 - dropout) if dropout else None
    return _Update(products.apart.update(out, _dropped(rows, kept, dropout), pair), kept)


def _back(
    products: Products, by_rows: torch.Tensor, by_out: torch.Tensor, pair: Pair, update: _Update, dropout: float
) -> torch.Tensor:
    """The gradient of the low-rank activations (S, r); that of what went into A is added to `by_rows`."""
    if update.kept is None:
        return products.apart.update(by_rows, by_out, pair, back=True)
    added = torch.zeros_like(by_rows)
    by_low = products.apart.update(added, by_out, pair, back=True)
    by_rows += _dropped(added, update.kept, dropout)
    return by_low


def _dropped(rows: torch.Tensor, kept: torch.Tensor | None, dropout: float) -> torch.Tensor:
    return rows if kept is None else rows * kept * (1 / (1 - dropout))
