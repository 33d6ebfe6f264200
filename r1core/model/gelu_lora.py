"""GELU-LoRA, an adapter of our own: `y = base(x) + 0.7 * B(gelu(A(x)))`, a low-rank update that is not linear.

A and B have biases; B starts at zero, so step 0 is the base to the bit. The weights are fp32 over a base of any dtype,
and the products run in the dtype of the input. Being no matrix, the update cannot be merged into the base; the layout
on disk is ours, so that no tool takes it for a plain LoRA.

I and O = input and output width, r = rank. Not covered: full training of other modules beside it, private training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from r1core.api import JSON, UserError
from r1core.model.own_adapter import AroundLinear, OwnAdapted
from r1core.model.own_files import CONFIG, FORMAT, WEIGHTS
from r1core.model.placement import linear_kinds, low_rank
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter

KIND = "gelu_lora"
INIT = "A: Kaiming uniform (a = sqrt 5), bias 0; B: weight 0, bias 0"
NOT_MERGEABLE = "a GELU-LoRA update is not linear in its input, so no weight of the base can hold it"


class GeluLinear(AroundLinear):
    """A linear layer and its update: (..., I) -> (..., O)."""

    def __init__(self, base: nn.Module, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        weight = base.weight
        assert isinstance(weight, torch.Tensor)
        outputs, inputs = weight.shape if isinstance(base, nn.Linear) else reversed(weight.shape)
        self.base_layer, self.scale, self.enabled = base, scale, True
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.gelu_A = nn.Linear(inputs, rank)
        self.gelu_B = nn.Linear(rank, outputs)
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.gelu_A.weight, a=math.sqrt(5))
            for zero in (self.gelu_A.bias, self.gelu_B.weight, self.gelu_B.bias):
                zero.zero_()
        self.gelu_A.to(weight.device)
        self.gelu_B.to(weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer; (..., I) -> (..., O) in the dtype of the base's result."""
        out: torch.Tensor = self.base_layer(x)
        if not self.enabled:
            return out
        low = functional.gelu(_linear(self.dropout(x), self.gelu_A))  # (..., r), the exact (erf) form
        return out + self.scale * _linear(low, self.gelu_B).to(out.dtype)


def _linear(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """`layer(x)` in the dtype of `x`; gradients reach the layer's fp32 weights in fp32."""
    return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class GeluAdapted(OwnAdapted):
    """A model whose linear layers named in `layers` have become `GeluLinear`s."""

    kind, not_mergeable = KIND, NOT_MERGEABLE

    def __init__(self, model: PreTrainedModel, strategy: Strategy, settings: Mapping[str, JSON]) -> None:
        super().__init__(model, strategy)
        self.settings = dict(settings)
        self.layers = {name: m for name, m in model.named_modules() if isinstance(m, GeluLinear)}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, every layer is its base layer alone."""
        self._switch(on=False)
        try:
            yield
        finally:
            self._switch(on=True)

    def state(self) -> dict[str, torch.Tensor]:
        """By layer: `model.layers.0.mlp.up_proj.gelu_A.weight`."""
        return {
            f"{name}.{half}.{key}": value
            for name, layer in self.layers.items()
            for half in ("gelu_A", "gelu_B")
            for key, value in getattr(layer, half).named_parameters()
        }

    def described(self) -> dict[str, JSON]:
        """How it starts, its settings, the layers that it is on."""
        return {"init": INIT, **self.settings, "modules": list(self.layers)}

    def _switch(self, *, on: bool) -> None:
        for layer in self.layers.values():
            layer.enabled = on


def add_gelu(model: PreTrainedModel, adapter: Adapter, strategy: Strategy, seed: int) -> GeluAdapted:
    """Put the recipe's adapter into the model."""
    targets: JSON = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    settings: dict[str, JSON] = {
        "rank": adapter.rank,
        "scale": adapter.gelu_scale,
        "dropout": adapter.dropout,
        "targets": targets,
        "first_layer": adapter.first_layer,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _put(model, low_rank(model, adapter, strategy), strategy, settings)


def load_gelu(model: PreTrainedModel, directory: Path) -> GeluAdapted:
    """Attach a saved adapter for inference.

    Raises
    ------
    UserError : when it is of another format or kind, broken, or made for another model.
    """
    path = directory / CONFIG
    fix = "train again, or use the version of r1core that wrote it"
    try:
        stated: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = (stated["format"], stated["kind"])
        if known != (FORMAT, KIND):
            raise UserError(f"{path}: format {known[0]} of kind {known[1]!r}, expected {FORMAT} of {KIND!r}", fix=fix)
        modules = [str(name) for name in stated["modules"]]
        settings = {key: stated[key] for key in ("rank", "scale", "dropout", "targets", "first_layer")}
        int(settings["rank"]), float(settings["scale"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an adapter's description: {error!r}", fix=fix) from error
    kinds = {name: type(module) for name, module in model.named_modules()}
    if unknown := [name for name in modules if not issubclass(kinds.get(name, object), linear_kinds())]:
        raise UserError(
            f"{path}: {unknown[0]} is no linear layer of this model", fix="use the base that it was made on"
        )
    made = _put(model, modules, Strategy(), settings)
    try:
        made.load(load_file(directory / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory / WEIGHTS}: cannot be read: {error}", fix="train again") from error
    model.requires_grad_(False)
    return made


def _put(model: PreTrainedModel, modules: list[str], strategy: Strategy, settings: Mapping[str, JSON]) -> GeluAdapted:
    rank, scale, dropout = settings["rank"], settings["scale"], settings["dropout"]
    assert isinstance(rank, int) and isinstance(scale, float) and isinstance(dropout, int | float)  # noqa: PT018
    model.requires_grad_(False)
    for name in modules:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, GeluLinear(model.get_submodule(name), rank, scale, dropout))
    return GeluAdapted(model, strategy, settings)
