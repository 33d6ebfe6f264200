"""LoRA, rsLoRA and DoRA through PEFT, with modules trained in full beside them, saved in PEFT's own layout.

Any tool that reads PEFT reads ours. Where an output head was untied, such a tool has to untie its base too. In a
mixture of experts it would take dense and shared feed-forward layers for experts (`_as_named`): give it the merged
model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import (
    ModulesToSaveWrapper,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
    transformers_weight_conversion,
)
from peft.utils.constants import DUMMY_TARGET_MODULES
from safetensors.torch import save_file
from transformers import PreTrainedModel

from r1core.model.adapted import Adapted
from r1core.model.expert_lora import factored
from r1core.model.fused_lora import FusedLinear
from r1core.model.headers import tensor_shapes
from r1core.model.placement import depth_of, expert_stacks, full, linear_names, low_rank, tied, untie
from r1core.model.roles import plain_name
from r1core.model.strategy import EXPERTS
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.runs.files import write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class PeftAdapted(Adapted):
    """A `PeftModel` with one adapter."""

    model: PeftModel

    def off(self) -> AbstractContextManager[None]:
        """PEFT's own switch; modules trained in full have kept what they were."""
        return self.model.disable_adapter()

    def state(self) -> dict[str, torch.Tensor]:
        """The adapter's weights under PEFT's names."""
        # Unasked, PEFT adds the whole embedding where the output head has a LoRA.
        return get_peft_model_state_dict(self.model, save_embedding_layers=False)

    def save(self, directory: Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """PEFT's layout: its configuration and its names."""
        config = replace(self.model.peft_config["default"], inference_mode=True)
        if isinstance(config, LoraConfig) and config.target_parameters:
            config.lora_dropout = 0.0  # it matters to training only, and PEFT's own wrapper of stacks refuses it
        config.save_pretrained(str(directory))
        stated = json.loads((directory / CONFIG).read_bytes())
        if isinstance(stated["target_modules"], list):  # of a set, whose order is another in every process
            write_json(directory / CONFIG, stated | {"target_modules": sorted(stated["target_modules"])})
        save_file(dict(tensors or self.tensors()), directory / WEIGHTS, metadata={"format": "pt"})

    @property
    def unmergeable(self) -> str | None:
        """Everything that PEFT makes for us merges."""
        return None

    def merged(self) -> PreTrainedModel:
        """PEFT's own merge, which refuses weights that are not finite."""
        merged: PreTrainedModel = self.model.merge_and_unload(safe_merge=True)
        return merged


def add_peft(model: PreTrainedModel, adapter: Adapter, strategy: Strategy, seed: int, *, fused: bool) -> PeftAdapted:
    """Put the recipe's adapter into the model; trained weights are fp32."""
    places, whole = low_rank(model, adapter, strategy), full(model, adapter, strategy)
    blocks, first = depth_of(model), adapter.first_layer
    everywhere = not strategy.given  # named by what layers are called, as PEFT's users do
    targets = adapter.targets if adapter.targets != "all-linear" else linear_names(model)
    named = [target for target in targets if target != EXPERTS]
    stacked = expert_stacks(model, adapter, strategy)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.kind == "rslora",
        use_dora=adapter.kind == "dora",
        target_modules=(named if everywhere else places) or DUMMY_TARGET_MODULES,
        target_parameters=stacked or None,
        layers_to_transform=list(range(first, blocks)) if everywhere and first else None,
        modules_to_save=whole or None,
    )
    if fused and not config.use_dora:
        config._register_custom_module({torch.nn.Linear: FusedLinear})  # PEFT's documented way to a layer of one's own
    factored(config, model)
    dtype = model.dtype
    with torch.random.fork_rng(devices=[]), _both_layouts(), _as_named():
        torch.manual_seed(seed)
        made = get_peft_model(model, config)
    for module in made.modules():
        if isinstance(module, FusedLinear):  # stands on torch's layer; the configuration is that of a transposed one
            module.fan_in_fan_out = False
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if adapter.freeze_a:
        for name, parameter in made.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    _cast_at_the_boundary(made, dtype)
    return PeftAdapted(made, strategy)


def load_peft(model: PreTrainedModel, directory: Path) -> PeftAdapted:
    """Attach a saved adapter for inference."""
    config = PeftConfig.from_pretrained(str(directory))
    whole = config.modules_to_save or ()
    if isinstance(config, LoraConfig):
        factored(config, model)
    dtype = model.dtype
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    trained = {plain_name(name) for name, _ in tensor_shapes(directory)}
    if tied(model) and any(name in trained for name, module in model.named_modules() if module in ends):
        untie(model)
    with _both_layouts(), _as_named():
        made = PeftModel.from_pretrained(model, str(directory), config=config)
    if whole:  # PEFT reads them in the base's dtype, which may round them
        for wrapper in _whole(made):
            wrapper.modules_to_save.float()
        set_peft_model_state_dict(made, load_peft_weights(str(directory), device=str(model.device)))
        _cast_at_the_boundary(made, dtype)
    return PeftAdapted(made, Strategy())


@contextmanager
def _both_layouts() -> Iterator[None]:
    """Let PEFT find out by itself, layer by layer, which way round a weight lies (GPT-2's are transposed)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
        yield


@contextmanager
def _as_named() -> Iterator[None]:
    """Let PEFT adapt the layers that are named, and no others.

    In a mixture of experts it takes the names of dense feed-forward layers for those of experts, as transformers held
    them before version 5: it would leave the dense and shared layers out, and adapt the stacked experts instead.
    """
    kept = transformers_weight_conversion.convert_peft_config_for_transformers
    transformers_weight_conversion.convert_peft_config_for_transformers = lambda *_, **__: None
    try:
        yield
    finally:
        transformers_weight_conversion.convert_peft_config_for_transformers = kept


def _whole(model: PeftModel) -> list[ModulesToSaveWrapper]:
    """The modules trained in full."""
    return [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]


def _cast_at_the_boundary(model: PeftModel, dtype: torch.dtype) -> None:
    """Let modules whose own weights are trained, in fp32, stand in a model of another dtype.

    R1's routers and experts do so themselves (`takes_any_dtype`): what they hand on is no plain tensor, or would have
    all experts computed in fp32.
    """
    if dtype == torch.float32:
        return
    for wrapper in _whole(model):
        for module in wrapper.modules_to_save.values():
            if getattr(module, "takes_any_dtype", False):
                continue
            module.register_forward_pre_hook(_to_fp32)
            module.register_forward_hook(lambda _module, _inputs, output: _cast(output, dtype))


def _to_fp32(_module: torch.nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_cast(value, torch.float32) for value in inputs)


def _cast(value: object, dtype: torch.dtype) -> object:
    """A tensor of floats, or each one of a tuple, in this dtype."""
    if isinstance(value, tuple):
        return tuple(_cast(one, dtype) for one in value)
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
