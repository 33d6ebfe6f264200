"""Row gradients by Opacus' hooks, without wrapping the model: the reference, and the engine of who prefers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleHooks

from r1core.api import R1Error


class OpacusRows:
    """See `api.RowGradients`. The hooks stay on the modules until the model is gone."""

    def __init__(self, model: torch.nn.Module, weights: Sequence[torch.nn.Parameter]) -> None:
        self._weights = list(weights)
        self._hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=False)
        self._hooks.disable_hooks()

    @contextmanager
    def of(self, rows: int) -> Iterator[None]:
        """Inside, passes over inputs `(rows, T, ...)` keep rows apart."""
        self._hooks.enable_hooks()
        try:
            yield
        finally:
            self._hooks.disable_hooks()

    def take(self) -> list[torch.Tensor]:
        """The gradients of the last pass."""
        taken = [getattr(weight, "grad_sample", None) for weight in self._weights]
        if any(one is None for one in taken):
            raise R1Error("Opacus took no gradient of some weights: the pass did not reach them")
        for weight in self._weights:
            weight.grad_sample = weight.grad = None  # type: ignore[attr-defined]
        return [one for one in taken if one is not None]
