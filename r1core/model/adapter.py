"""Adapters of every kind: put into a model as the recipe says, or taken up from a directory by the file in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.model import gelu_lora, peft_adapter, pool, pool_check
from r1core.model.adapted import Adapted, adapted_of
from r1core.model.placement import tied, untie
from r1core.model.start_check import frozen_a
from r1core.model.strategy import beside_experts, beside_gelu, needs_untie, tied_refusal
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter


def add_adapter(
    model: PreTrainedModel,
    adapter: Adapter,
    seed: int,
    *,
    strategy: Strategy | None = None,
    fused: bool = True,
    wanted: pool.Wanted | None = None,
) -> Adapted:
    """Put an untrained adapter into the model, in place; trained weights are fp32, all others frozen.

    Parameters
    ----------
    seed : of the initial weights; the global generator stays as it is.
    strategy : the layer-wise table; none = LoRA on `adapter.targets` from `adapter.first_layer` on.
    wanted : the pool of task adapters to make; none = one adapter for all rows.
    fused : take the faster forward of `fused_lora`; False where per-sample gradients hook PEFT's own layers.

    Raises
    ------
    UserError : for targets or roles that the model does not have, a `first_layer` beyond its depth, a tied output head
        that would have to be untied, full training beside GELU-LoRA, `freeze_a` beside it or a pool, a strategy that
        trains nothing.
    """
    strategy = strategy or Strategy()
    if tied(model):
        if needs_untie(strategy) and not strategy.untie:
            raise tied_refusal(strategy)
        if strategy.untie:
            untie(model)
    if all(treatment.mode == "frozen" for treatment in strategy.treatments().values()):
        raise UserError("strategy: every role is frozen, nothing would be trained", fix="give a role another mode")
    if (refusal := frozen_a(adapter, pool=wanted is not None)) is not None:
        raise refusal
    if (refusal := beside_experts(adapter, pool=wanted is not None)) is not None:
        raise refusal
    if wanted is not None:
        return pool.add_pool(model, adapter, strategy, seed, wanted)
    if adapter.kind == "gelu_lora":
        if (refusal := beside_gelu(strategy)) is not None:
            raise refusal
        return gelu_lora.add_gelu(model, adapter, strategy, seed)
    return peft_adapter.add_peft(model, adapter, strategy, seed, fused=fused)


def load_adapter(model: PreTrainedModel, directory: Path) -> Adapted:
    """Attach a saved adapter for inference.

    Raises
    ------
    UserError : when the directory holds no adapter, or one that does not fit.
    """
    if pool_check.known_tasks(directory):
        return pool.load_pool(model, directory)
    if (directory / gelu_lora.CONFIG).is_file():
        return gelu_lora.load_gelu(model, directory)
    if (directory / peft_adapter.CONFIG).is_file():
        return peft_adapter.load_peft(model, directory)
    raise UserError(f"{directory}: no adapter here", fix="train first: r1core train <the same arguments>")


def stored_tensors(directory: Path) -> dict[str, torch.Tensor]:
    """A saved adapter's weights, as `set_adapter_tensors` takes them.

    Raises
    ------
    UserError : when the directory holds no adapter, or one that cannot be read.
    """
    found = [directory / name for name in (gelu_lora.WEIGHTS, peft_adapter.WEIGHTS) if (directory / name).is_file()]
    if not found:
        raise UserError(f"{directory}: no adapter here", fix="train that run first")
    try:
        return load_file(found[0])
    except SafetensorError as error:
        raise UserError(f"{found[0]}: cannot be read: {error}", fix="train that run again") from error


def adapter_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the weights that the model's adapter trains, by stable names."""
    return adapted_of(model).tensors()


def set_adapter_tensors(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the adapter's weights; every one must be there.

    Raises
    ------
    UserError : when names or shapes do not fit this model.
    """
    adapted_of(model).load(tensors)
