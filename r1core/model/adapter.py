"""LoRA through PEFT, saved in PEFT's own layout so that any tool that reads PEFT reads ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.model.fused_lora import FusedLinear
from r1core.model.layers import site_module
from r1core.recipe.training import Adapter


def add_lora(model: PreTrainedModel, adapter: Adapter, seed: int, *, fused: bool = True) -> PeftModel:
    """Add LoRA of the recipe's rank to the blocks from `first_layer` on; trainables are fp32 (DESIGN §9).

    `fused` : take the faster forward of `fused_lora`; False where per-sample gradients hook PEFT's own layers.

    Raises
    ------
    UserError : for targets that the model does not have, or a `first_layer` beyond its depth.
    """
    depth = model.config.get_text_config().num_hidden_layers
    if adapter.first_layer >= depth:
        raise UserError(
            f"adapter.first_layer = {adapter.first_layer}: the model has {depth} blocks", fix=f"use 0 to {depth - 1}"
        )
    targets = adapter.targets if adapter.targets != "all-linear" else linear_names(model)
    _refuse_unknown(model, targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(targets),
        layers_to_transform=list(range(adapter.first_layer, depth)) if adapter.first_layer else None,
    )
    if fused:
        config._register_custom_module({torch.nn.Linear: FusedLinear})  # PEFT's documented way to a layer of one's own
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the linear layers inside the decoder blocks (the output head is never among them)."""
    return sorted({name.rpartition(".")[2] for name in _linear_paths(model)})


def _linear_paths(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers inside a decoder block."""
    kinds = (torch.nn.Linear, *_conv1d())
    return [name for name, m in site_module(model, "block:0").named_modules() if isinstance(m, kinds)]


def _refuse_unknown(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """PEFT passes over a name that fits nothing as long as another one fits."""
    paths = _linear_paths(model)
    unknown = [t for t in targets if not any(f".{path}".endswith(f".{t}") for path in paths)]
    if unknown or not targets:
        found = ", ".join(map(repr, unknown)) or "nothing"
        raise UserError(
            f"adapter.targets: found {found}, expected linear layers of the model's blocks",
            fix=f"use some of: {', '.join(linear_names(model))}",
        )


def adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's weights under PEFT's names."""
    return {k: v.detach().contiguous().clone() for k, v in get_peft_model_state_dict(model).items()}


def set_adapter_tensors(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the adapter's weights; every one must be there.

    Raises
    ------
    UserError : when names or shapes do not fit this model.
    """
    own = get_peft_model_state_dict(model)
    if own.keys() != tensors.keys():
        missing, extra = sorted(own.keys() - tensors.keys())[:3], sorted(tensors.keys() - own.keys())[:3]
        raise UserError(f"adapter weights: missing {missing}, left over {extra}", fix="use the recipe of that run")
    for name, target in own.items():
        if target.shape != tensors[name].shape:
            found, expected = tuple(tensors[name].shape), tuple(target.shape)
            raise UserError(
                f"adapter weights: {name} is {found}, expected {expected}", fix="use the recipe of that run"
            )
    set_peft_model_state_dict(model, dict(tensors))


def load_lora(model: PreTrainedModel, directory: Path) -> PeftModel:
    """Attach a saved adapter for inference.

    Raises
    ------
    UserError : when the directory holds no adapter.
    """
    if not (directory / "adapter_config.json").is_file():
        raise UserError(f"{directory}: no adapter here", fix="train first: r1core train <the same arguments>")
    return PeftModel.from_pretrained(model, str(directory))


def _conv1d() -> tuple[type, ...]:
    from transformers.pytorch_utils import Conv1D

    return (Conv1D,)
