"""What the adapters of our own have in common: layers around a base layer, two files, and no way into the base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from r1core.api import JSON, UserError
from r1core.model.adapted import Adapted
from r1core.model.own_files import CONFIG, FORMAT, WEIGHTS
from r1core.runs.files import write_json


class AroundLinear(nn.Module):
    """A layer that computes with a base layer, and looks like it to code that asks for a shape or dtype."""

    base_layer: nn.Module

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's."""
        return self.base_layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> torch.Tensor | None:
        """The base layer's."""
        return self.base_layer.bias  # type: ignore[return-value]


class OwnAdapted(Adapted):
    """An adapter whose layout on disk is ours, so that no tool takes it for a plain LoRA."""

    model: PreTrainedModel
    kind: ClassVar[str]
    not_mergeable: ClassVar[str]

    @abstractmethod
    def described(self) -> dict[str, JSON]:
        """What `r1core_adapter.json` states besides format and kind."""

    def save(self, directory: Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write `r1core_adapter.json` and `r1core_adapter.safetensors`."""
        stated: dict[str, JSON] = {"format": FORMAT, "kind": self.kind}
        write_json(directory / CONFIG, stated | self.described())
        weights = dict(tensors or self.tensors())
        save_file(weights, directory / WEIGHTS, metadata={"format": "r1core", "kind": self.kind})

    @property
    def unmergeable(self) -> str | None:
        """Never mergeable."""
        return self.not_mergeable

    def merged(self) -> NoReturn:
        """Refused."""
        raise UserError(self.not_mergeable, fix="serve it with r1core generate, or train a LoRA")
