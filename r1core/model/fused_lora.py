"""PEFT's LoRA layer with the same mathematics in fewer passes over memory: a drop-in for training.

PEFT computes `base(x) + B(A(x)) * scaling` as five operations, each with a result of its own, and casts the input to
fp32 where the base is bf16. Here the low-rank product is added into the base's result by the matrix product itself,
forward and backward, in the base's dtype; the weights stay fp32 and get fp32 gradients. Where rows are lent weights
of their own (`r1core.model.row_gradients`), the same two products give the gradients of each row.

T = tokens, I and O = input and output width, r = rank, R = rows of a pass. Not covered, and left to PEFT's own forward:
dropout, variants (DoRA and others), merged or several adapters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear

from r1core.api import R1Error


def scaled(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    """`factor * (left @ right)`; the factor costs nothing inside the product."""
    out = left.new_empty(left.shape[0], right.shape[1])
    return torch.addmm(out, left, right, beta=0, alpha=factor, out=out)


def wide(left: torch.Tensor, right: torch.Tensor, rows: int = 0) -> torch.Tensor:
    """`left^T @ right` in fp32, whatever the dtype of the factors (T, a) and (T, b): (a, b).

    With `rows`, of which each holds as many of the T tokens, (R, a, b): the product of each row's own tokens.
    """
    if rows:
        left, right = left.view(rows, -1, left.shape[-1]), right.view(rows, -1, right.shape[-1])
    turned = left.transpose(-2, -1)
    if left.is_cuda and left.dtype != torch.float32:
        product = torch.bmm if rows else torch.mm
        return product(turned, right, out_dtype=torch.float32)
    return (turned @ right).float()


def _forward(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output (T, O), and the scaled low-rank activations (T, r)."""
    low = scaled(rows, down.t(), scaling)
    # The small product first: the large one then adds to it while it computes, which hides the reading.
    out = low @ up.t() if bias is None else torch.addmm(bias, low, up.t())
    return out.addmm_(rows, weight.t()), low


def _backward(
    grad: torch.Tensor,
    rows: torch.Tensor,
    low: torch.Tensor,
    weight: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
    inward: bool,
    both: bool,
    each: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of `rows` (T, I), empty unless `inward`, of `down` (r, I), empty unless `both`, and of `up` (O, r).

    The last two are fp32; where `each` is not 0, of so many rows apart: (R, r, I) and (R, O, r).
    """
    low_grad = scaled(grad, up, scaling)  # (T, r)
    rows_grad = (low_grad @ down).addmm_(grad, weight) if inward else grad.new_empty(0)
    by_down = wide(low_grad, rows, each) if both else down.new_empty(0, dtype=torch.float32)
    return rows_grad, by_down, wide(grad, low, each)


# Opaque to torch.compile, which would undo the additions in place by copying each result first.
_forward_op = torch.library.custom_op("r1core::low_rank_forward", _forward, mutates_args=())
_backward_op = torch.library.custom_op("r1core::low_rank_backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.new_empty(rows.shape[0], weight.shape[0]), rows.new_empty(rows.shape[0], down.shape[0])


@_backward_op.register_fake
def _(
    grad: torch.Tensor,
    rows: torch.Tensor,
    low: torch.Tensor,
    weight: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
    inward: bool,
    both: bool,
    each: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows_grad = torch.empty_like(rows) if inward else grad.new_empty(0)
    shapes = [(each, *p.shape) if each else p.shape for p in (down, up)]
    if not both:
        shapes[0] = (0,)
    by_down, by_up = (torch.empty(shape, device=grad.device, dtype=torch.float32) for shape in shapes)
    return rows_grad, by_down, by_up


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
        down_cast: torch.Tensor,
        up_cast: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """`x` (..., I), `weight` (O, I), `down` (r, I) and `up` (O, r) fp32, and both in x's dtype -> (..., O).

        `down` and `up` are only what the gradients are for: (R, r, I) and (R, O, r) where each row has its own. A
        `down` that is not trained gets none.
        """
        rows = x.reshape(-1, x.shape[-1])
        call: Callable[..., Any] = _forward_op if x.is_cuda else _forward
        out, low = call(rows, weight, bias, down_cast, up_cast, scaling)
        ctx.save_for_backward(rows, low, weight, down_cast, up_cast)
        ctx.scaling, ctx.shape, ctx.each = scaling, x.shape, up.shape[0] if up.ndim == 3 else 0
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x`, `down` and `up`."""
        rows, low, weight, down, up = ctx.saved_tensors
        grad, (inward, *_, both) = grads[0].reshape(-1, weight.shape[0]), ctx.needs_input_grad[:4]
        call: Callable[..., Any] = _backward_op if grad.is_cuda else _backward
        by_rows, by_down, by_up = call(grad, rows, low, weight, down, up, ctx.scaling, inward, both, ctx.each)
        by_x, by_a = by_rows.view(ctx.shape) if inward else None, by_down if both else None
        return by_x, None, None, by_a, by_up, None, None, None


class Casting(ABC):
    """A layer that takes its adapters' weights in the base's dtype where `Casts` has them at hand."""

    casts: tuple[torch.Tensor, ...] | None = None
    """`adapter_weights()` in the base's dtype, kept up to date by `Casts`; None: cast anew in every pass."""

    @abstractmethod
    def adapter_weights(self) -> list[torch.Tensor]:
        """A and B in fp32, in the order of `casts`; none where they are not taken so."""

    @abstractmethod
    def base_dtype(self) -> torch.dtype:
        """Of the frozen weight."""


class FusedLinear(Casting, Linear):
    """`peft.tuners.lora.Linear` that takes the fused path where it means the same."""

    lent: tuple[torch.Tensor, torch.Tensor] | None = None
    """A and B of each row, (R, r, I) and (R, O, r), while rows have weights of their own; a frozen A is as it is."""

    @property
    def plain(self) -> bool:
        """Whether the fused path means the same as PEFT's own."""
        names = self.active_adapters
        return (
            len(names) == 1
            and names[0] in self.lora_A
            and not (self.merged or self.disable_adapters or self.lora_variant)
            and not isinstance(self.lora_dropout[names[0]], torch.nn.Dropout)
        )

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """PEFT's `forward`, (..., I) -> (..., O)."""
        names = self.active_adapters
        base = self.get_base_layer()
        if not self.plain or args or kwargs or x.dtype != base.weight.dtype:
            if self.lent is not None:
                raise R1Error("a LoRA layer left the path by which rows have gradients of their own")
            return super().forward(x, *args, **kwargs)
        down: torch.Tensor = self.lora_A[names[0]].weight  # type: ignore[assignment]  # torch's stub: or a module
        up: torch.Tensor = self.lora_B[names[0]].weight  # type: ignore[assignment]
        casts = (down.detach().to(x.dtype), up.detach().to(x.dtype)) if self.casts is None else self.casts
        learnt = (down, up) if self.lent is None else self.lent
        return _LowRankSum.apply(x, base.weight, base.bias, *learnt, *casts, self.scaling[names[0]])

    def adapter_weights(self) -> list[torch.Tensor]:
        """A and B of the one adapter; none where there are several."""
        if len(self.active_adapters) != 1:
            return []
        return [part[self.active_adapters[0]].get_parameter("weight") for part in (self.lora_A, self.lora_B)]

    def base_dtype(self) -> torch.dtype:
        """Of the base layer's weight."""
        return self.get_base_layer().get_parameter("weight").dtype


class Casts:
    """Copies of all fused layers' A and B in the base's dtype, made once a step instead of once a layer and pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers: list[Casting] = []
        self._from: list[torch.Tensor] = []
        self._to: list[torch.Tensor] = []
        for layer in model.modules():
            if not isinstance(layer, Casting):
                continue
            weights = layer.adapter_weights()
            if not weights or layer.base_dtype() == weights[0].dtype:
                continue
            layer.casts = tuple(w.detach().to(layer.base_dtype()) for w in weights)
            self._layers.append(layer)
            self._from += weights
            self._to += layer.casts

    def refresh(self) -> None:
        """Copy the weights as they are now."""
        if self._to:
            with torch.no_grad():
                torch._foreach_copy_(self._to, self._from)

    def end(self) -> None:
        """Let the layers cast their weights themselves again."""
        for layer in self._layers:
            layer.casts = None
