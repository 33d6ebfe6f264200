"""Routed experts on a GPU: torch's grouped matrix products with fused kernels between them.

Nothing waits for the host. Low-rank updates are too narrow for the grouped products and have kernels of their own.

N = tokens, K = experts of a token, S = N K rows, H = model width, I = expert width, E = experts.
Not covered: widths that are no multiple of 8 and fp32, which `experts_cpu`'s plain products compute here too.
"""

from __future__ import annotations

import torch

from r1core.model.r1.grouped_cpu import differentiated, experts_cpu
from r1core.model.r1.routed import LowRank, Pair, Seen, routed
from r1core.model.r1.triton_few import few
from r1core.model.r1.triton_lay import turn_back
from r1core.model.r1.triton_low import slopes, update
from r1core.model.r1.triton_rows import gate, gate_back, home, sort_by_expert

FEW = 32
"""Tokens up to which, without gradients, experts' weights are read where they lie."""
ALIGNED = 8
"""Elements of two bytes in the 16 bytes that a grouped product wants rows to start at."""


def experts_cuda(
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    low: LowRank | None = None,
) -> torch.Tensor:
    """As `r1core.model.r1.grouped_cpu.experts_cpu`, on a GPU."""
    if gate_up.dtype != torch.bfloat16 or gate_up.shape[-1] % ALIGNED or down.shape[-1] % ALIGNED:
        return experts_cpu(hidden, chosen, weights, gate_up, down, low)
    hidden, weights = hidden.to(gate_up.dtype), weights.to(gate_up.dtype)
    adapted = () if low is None else low.trained
    if len(hidden) <= FEW and not differentiated(hidden, weights, gate_up, down, *adapted):
        return few(hidden, chosen, weights, gate_up, down, low)
    return routed(_Grouped(chosen, weights, len(down), low), hidden, weights, gate_up, down, low)


class _LowRanks:
    """Products of rows with the narrow halves of low-rank updates; see `r1core.model.r1.routed.Products`.

    Parameters
    ----------
    ends : (E P,) int32, where the rows of each expert and adapter end.
    """

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends

    def update(self, out: torch.Tensor, rows: torch.Tensor, pair: Pair, back: bool = False) -> torch.Tensor:
        """Add `rows_e A_e^T B_e^T` to `out`, or `rows_e B_e A_e`: the product with the first half, (S, r)."""
        return update(out, rows, pair, self.ends, back)

    def slopes(self, low: LowRank, seen: tuple[Seen, Seen]) -> tuple[torch.Tensor, ...]:
        """Gradients of `low.trained`, summed in fp32."""
        assert low.learnt is not None
        one, other = low.learnt
        scales, dtypes = (one.scaling, other.scaling), (one.down.dtype, other.down.dtype)
        down, up, down_other, up_other = slopes(seen, self.ends, scales, dtypes)
        up, up_other = turn_back((up, up_other), (one.up, other.up))
        return down.flatten(0, 1), up, down_other.flatten(0, 1), up_other


class _Grouped:
    """Rows sorted by expert on the GPU; see `r1core.model.r1.routed.Products`."""

    def __init__(self, chosen: torch.Tensor, weights: torch.Tensor, experts: int, low: LowRank | None) -> None:
        self.shape, adapters = chosen.shape, 1 if low is None else low.adapters
        slots = chosen if low is None else low.slots(chosen)
        self.place, self.token, self.shares, ends = sort_by_expert(slots, weights.detach(), experts * adapters)
        self.offsets = ends[adapters - 1 :: adapters].contiguous()
        self.apart = _LowRanks(ends)

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens (N, H), each at the places of its experts: (S, H)."""
        return hidden.index_select(0, self.token)

    def home(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (S, H), summed at their tokens: (N, H)."""
        return home(rows, self.place, self.offsets[-1:], self.shape[-1])

    def shares_home(self, shares: torch.Tensor) -> torch.Tensor:
        """Numbers of rows (S,) at their tokens: (N, K)."""
        inside = self.place < self.offsets[-1]
        return torch.where(inside, shares.index_select(0, self.place), 0).view(self.shape)

    def times(self, rows: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
        """`rows_e stack_e`; rows without an expert are undefined."""
        return torch._grouped_mm(rows, stack, offs=self.offsets)

    def outer(self, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`left_e^T right_e`."""
        return torch._grouped_mm(left.t(), right, offs=self.offsets)

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        """`silu(gate) * up * share` of (S, 2 I): (S, I)."""
        return gate(both, self.shares)

    def gate_back(self, both: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weighted activations (S, I), gradients of both projections (S, 2 I) and of the shares (S,)."""
        return gate_back(both, self.shares, slope)
