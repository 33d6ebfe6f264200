"""The gradient of each row of a pass, apart from all others, in one backward pass and without wrapping the model.

Every row is lent weights of its own: the one weight, expanded over the rows without a copy. What autograd leaves in the
`.grad` of such a loan is the gradient of each row; it is exact, and gradient checkpointing, several passes and
`torch.compile` go with it as with any weight. The matrix products are as large as those of a summed gradient.

R = rows of a pass, I and O = input and output width, r = rank. Covers LoRA and rsLoRA through `FusedLinear` and plain
linear layers trained in full. Not covered, and refused by name: everything else that is trained, and dropout inside an
adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from r1core.api import R1Error, UserError
from r1core.model.fused_lora import FusedLinear, wide


class RowGradients:
    """Row gradients of a model's trained weights.

    Parameters
    ----------
    named : the trained weights by their names in the model, in the order in which gradients are given.

    Raises
    ------
    UserError : for a trained weight without an exact rule, and for a model with batch statistics.
    """

    def __init__(self, model: nn.Module, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        _refuse_batch_statistics(model)
        self.weights = [parameter for _, parameter in named]
        at = {id(parameter): place for place, parameter in enumerate(self.weights)}
        self._lenders = list(_lenders(model, at))
        covered = {place for lender in self._lenders for place in lender.places}
        for place, (name, _) in enumerate(named):
            if place not in covered:
                raise UserError(
                    f"{name}: there is no exact rule for the gradient of one row of this weight",
                    fix="train LoRA (adapter.dropout = 0) or linear layers of the blocks only, without extra layers",
                )
        self._loans: list[torch.Tensor] = []
        self._rows = 0  # that the loans are for; passes of one size need them made once

    @contextmanager
    def of(self, rows: int) -> Iterator[None]:
        """Inside, a forward and backward pass over inputs `(rows, T, ...)` keeps rows apart."""
        if rows != self._rows:
            self._loans = [w.detach().expand(rows, *w.shape).requires_grad_() for w in self.weights]
            self._rows = rows
        try:
            for lender in self._lenders:
                lender.lend([self._loans[place] for place in lender.places])
            yield
        finally:
            for lender in self._lenders:
                lender.end()

    def take(self) -> list[torch.Tensor]:
        """The gradients of the last pass, `(R, *shape)` fp32 of each weight.

        Raises
        ------
        R1Error : when a weight got none.
        """
        taken = [loan.grad for loan in self._loans]
        for loan in self._loans:
            loan.grad = None
        missing = sum(gradient is None for gradient in taken)
        if missing or not taken:
            raise R1Error(f"{missing} of {len(taken)} trained weights got no gradient: the pass did not reach them")
        return [gradient for gradient in taken if gradient is not None]


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"{name}: a batch norm computes each row with the others' values, so no row has a gradient of its own",
                fix="take a base model without batch statistics",
            )


class _Lender(ABC):
    """A module that takes weights of each row; `places` of its weights among all trained ones."""

    places: list[int]

    @abstractmethod
    def lend(self, weights: Sequence[torch.Tensor]) -> None:
        """Compute with these, (R, *shape), from now on."""

    @abstractmethod
    def end(self) -> None:
        """Compute with the module's own weights again."""


class _LowRank(_Lender):
    """A LoRA layer of which both halves are trained, or B alone."""

    def __init__(self, layer: FusedLinear, places: list[int]) -> None:
        self.layer, self.places = layer, places

    def lend(self, weights: Sequence[torch.Tensor]) -> None:
        frozen = self.layer.adapter_weights()[: 2 - len(weights)]
        down, up = (*frozen, *weights)
        self.layer.lent = (down, up)

    def end(self) -> None:
        self.layer.lent = None


class _Whole(_Lender):
    """A linear layer, whose `forward` is another one meanwhile."""

    def __init__(self, layer: nn.Linear, places: list[int]) -> None:
        self.layer, self.places = layer, places

    def lend(self, weights: Sequence[torch.Tensor]) -> None:
        loan = (*weights, None)[:2]

        def forward(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = _RowLinear.apply(x, layer.weight, layer.bias, *loan)
            return out

        self.layer.forward = MethodType(forward, self.layer)  # type: ignore[method-assign]

    def end(self) -> None:
        self.layer.__dict__.pop("forward", None)


class _RowLinear(torch.autograd.Function):
    """`x W^T + b`, whose gradients by `W` and `b` are those of each row."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        by_weight: torch.Tensor,
        by_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """`x` (R, T, I), `weight` (O, I), `bias` (O,) -> (R, T, O); `by_weight` (R, O, I), `by_bias` (R, O)."""
        ctx.save_for_backward(x, weight)
        ctx.biased = by_bias is not None
        return functional.linear(x, weight.detach(), None if bias is None else bias.detach())

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x`, and of each row's weight and bias, fp32."""
        x, weight = ctx.saved_tensors
        grad = grads[0]
        by_x = grad @ weight if ctx.needs_input_grad[0] else None
        by_weight = wide(grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1]), x.shape[0])
        by_bias = grad.flatten(1, -2).sum(1, dtype=torch.float32) if ctx.biased else None
        return by_x, None, None, by_weight, by_bias


def _lenders(model: nn.Module, at: dict[int, int]) -> Iterator[_Lender]:
    """What can lend, of the modules that own trained weights."""

    def places(weights: Sequence[nn.Parameter | torch.Tensor | None]) -> list[int]:
        return [at[id(weight)] for weight in weights if id(weight) in at]

    # Called by nobody: the output head, whose weight the loss reads itself, and the halves of fused pairs.
    head = _head(model)
    uncalled = set() if head is None else {id(part) for part in head.modules()}
    for module in model.modules():
        if isinstance(module, FusedLinear):
            uncalled |= {id(half) for halves in (module.lora_A, module.lora_B) for half in halves.values()}
    for module in model.modules():
        if isinstance(module, FusedLinear):
            halves = module.adapter_weights() if module.plain else []
            if halves and id(halves[1]) in at:
                yield _LowRank(module, places(halves))
        elif type(module) is nn.Linear and id(module) not in uncalled and id(module.weight) in at:
            yield _Whole(module, places([module.weight, module.bias]))


def _head(model: nn.Module) -> nn.Module | None:
    """The output head (`r1core.model.scores`)."""
    asked: Callable[[], nn.Module | None] | None = getattr(model, "get_output_embeddings", None)
    return None if asked is None else asked()
