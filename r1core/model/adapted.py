"""The seam between the core and every kind of adapter: a base model with something trained in it.

Training, evaluation and generation compute with `Adapted.model` and ask the rest of it for nothing else, so that a new
kind of adapter is one more class here below and one more line in `r1core.model.adapter`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.model.roles import role_of
from r1core.model.slices import own_slice, slice_of
from r1core.recipe.strategy import Strategy, Treatment

LanguageModel: TypeAlias = PreTrainedModel | PeftModel
"""What computes logits: a plain model, or one that an adapter has been put into."""
_HANDLE = "r1core_adapted"
"""Attribute under which a model leads back to its `Adapted`; `torch.compile` passes it on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained weight: its name in the model, its role, and whether it is the second half (B) of a low-rank pair."""

    name: str
    parameter: torch.nn.Parameter
    role: str
    up: bool


class Adapted(ABC):
    """A base model with an adapter in it.

    Parameters
    ----------
    model : takes what a Hugging Face causal language model takes; trained weights are those that require a gradient.
    strategy : the layer-wise table that it was made by; the empty one where it was loaded to answer.
    """

    def __init__(self, model: LanguageModel, strategy: Strategy) -> None:
        self.model, self.strategy = model, strategy
        setattr(model, _HANDLE, self)

    @property
    def routed(self) -> bool:
        """Whether a pass has to be told which of its tokens belong to which task."""
        return False

    @abstractmethod
    def off(self) -> AbstractContextManager[None]:
        """Inside, the model is the base model, to the bit."""

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """The trained weights themselves, by stable names."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of the trained weights, by stable names; of what is cut over processes, this one's slices."""
        return {name: slice_of(value.detach()).contiguous().clone() for name, value in self.state().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Set the trained weights from `tensors()`'s layout, or from the whole of what is cut.

        Raises
        ------
        UserError : when names or shapes do not fit this model.
        """
        own = self.state()
        require_same(own, tensors)
        with torch.no_grad():
            for name, target in own.items():
                slice_of(target).copy_(own_slice(tensors[name], target))

    @abstractmethod
    def save(self, directory: Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write into an existing directory what `r1core.model.adapter.load_adapter` reads.

        `tensors` : the trained weights, whole, where the model itself holds slices; else it is asked.
        """

    @property
    @abstractmethod
    def unmergeable(self) -> str | None:
        """Why it cannot become part of the base's own weights; None where it can."""

    @abstractmethod
    def merged(self) -> PreTrainedModel:
        """The base model with the adapter in its own weights; this object is used up.

        Raises
        ------
        UserError : where `unmergeable` says why.
        """

    def trained(self) -> Iterator[Trained]:
        """The weights that require a gradient, in the order of the model's modules."""
        blocks = self.model.config.get_text_config().num_hidden_layers
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                up = ".lora_B." in name or ".gelu_B." in name
                yield Trained(name, parameter, role_of(name, blocks), up)

    def treatment(self, role: str) -> Treatment:
        """What the strategy says of a role."""
        return self.strategy.treatments()[role]


def adapted_of(model: torch.nn.Module) -> Adapted:
    """The `Adapted` whose `model` this is.

    Raises
    ------
    TypeError : for a model without an adapter.
    """
    found = getattr(model, _HANDLE, None)
    if not isinstance(found, Adapted):
        raise TypeError(f"{type(model).__name__} has no adapter in it")
    return found


def require_same(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights whose names or shapes differ from the model's own.

    Raises
    ------
    UserError : naming the first that differ.
    """
    fix = "use the recipe of that run"
    if own.keys() != given.keys():
        missing, extra = sorted(own.keys() - given.keys())[:3], sorted(given.keys() - own.keys())[:3]
        raise UserError(f"adapter weights: missing {missing}, left over {extra}", fix=fix)
    for name, target in own.items():
        if given[name].shape not in (target.shape, slice_of(target).shape):
            found, expected = tuple(given[name].shape), tuple(target.shape)
            raise UserError(f"adapter weights: {name} is {found}, expected {expected}", fix=fix)
