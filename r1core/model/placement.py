"""Which modules of a model the recipe trains: linear layers that get a low-rank adapter, modules trained in full."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.model.expert_lora import STACKS, stacks_of
from r1core.model.layers import site_module
from r1core.model.roles import block_of, role_of
from r1core.model.strategy import EXPERTS
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter

NOBODY = "no layer of this model, from adapter.first_layer on,"


def depth_of(model: PreTrainedModel) -> int:
    """Number of decoder blocks."""
    return int(model.config.get_text_config().num_hidden_layers)


def low_rank(model: PreTrainedModel, adapter: Adapter, strategy: Strategy) -> list[str]:
    """Names of the linear layers that get an adapter, in the model's order.

    Raises
    ------
    UserError : for targets that the model does not have, a `first_layer` beyond its depth, or a role that the strategy
        gives LoRA though it holds no linear layer.
    """
    depth = depth_of(model)
    if adapter.first_layer >= depth:
        raise UserError(
            f"adapter.first_layer = {adapter.first_layer}: the model has {depth} blocks", fix=f"use 0 to {depth - 1}"
        )
    targets = adapter.targets if adapter.targets != "all-linear" else linear_names(model)
    stacked = expert_stacks(model, adapter, strategy)
    if targets != [EXPERTS] or not stacked:
        _refuse_unknown(model, [target for target in targets if target != EXPERTS or not stacked])
    treatments = strategy.treatments()
    blocks = f"{_blocks_name(model)}."
    found: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, linear_kinds()) or treatments[role := role_of(name, depth)].mode != "lora":
            continue
        block = block_of(name) if name.startswith(blocks) else None
        targeted = any(f".{name}".endswith(f".{target}") for target in targets)
        if (role == "output") if block is None else (targeted and block >= adapter.first_layer):
            found.append(name)
    _refuse_empty(model, adapter, strategy, found)
    return found


def expert_stacks(model: PreTrainedModel, adapter: Adapter, strategy: Strategy) -> list[str]:
    """Names of the stacks of experts that get an adapter: of every open block, where `adapter.targets` names them."""
    if EXPERTS not in adapter.targets or adapter.targets == "all-linear":
        return []
    treatments, depth = strategy.treatments(), depth_of(model)
    return [
        f"{name}.{stack}"
        for name, _ in stacks_of(model)
        if treatments[role_of(name, depth)].mode == "lora" and _open(name, adapter)
        for stack in STACKS
    ]


def full(model: PreTrainedModel, adapter: Adapter, strategy: Strategy) -> list[str]:
    """Names of the modules whose own weights are trained, in the model's order.

    Raises
    ------
    UserError : for a role that is not in the model, or whose weights lie beside modules with weights of their own.
    """
    treatments, depth = strategy.treatments(), depth_of(model)
    owners: dict[str, str] = {}
    for name, _ in model.named_parameters():
        role = role_of(name, depth)
        if treatments[role].mode == "full" and _open(name, adapter):
            owners[name.rpartition(".")[0]] = role
    for owner, role in owners.items():
        if any("." in name for name, _ in model.get_submodule(owner).named_parameters()):
            raise UserError(
                f'strategy.{role}.mode = "full": {owner} holds weights and modules with weights, and cannot be trained',
                fix=f"use another mode for {role}",
            )
    for role, treatment in treatments.items():
        if treatment.mode == "full" and getattr(strategy, role) is not None and role not in owners.values():
            raise UserError(f"strategy.{role}: {NOBODY} plays that role", fix=f"drop [strategy.{role}]")
    return list(owners)


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the linear layers inside the decoder blocks (the output head is never among them)."""
    return sorted({name.rpartition(".")[2] for name in _linear_paths(model)})


def linear_kinds() -> tuple[type[torch.nn.Module], ...]:
    """Classes of linear layers: torch's, and the transposed one of GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return torch.nn.Linear, Conv1D


def tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", None)


def untie(model: PreTrainedModel) -> None:
    """Give a tied output head a copy of the embedding's weights, and say so in the model's configuration."""
    head = model.get_output_embeddings()
    assert head is not None
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _open(name: str, adapter: Adapter) -> bool:
    """Whether a weight lies outside the blocks, or in one that may be trained."""
    block = block_of(name)
    return block is None or block >= adapter.first_layer


def _blocks_name(model: PreTrainedModel) -> str:
    """Name of the list of decoder blocks."""
    first = site_module(model, "block:0")
    return next(name for name, module in model.named_modules() if module is first).rpartition(".")[0]


def _linear_paths(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers inside the decoder blocks, which may differ (dense ones, and ones with experts)."""
    blocks = model.get_submodule(_blocks_name(model))
    return [name for name, module in blocks.named_modules() if isinstance(module, linear_kinds())]


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


def _refuse_empty(model: PreTrainedModel, adapter: Adapter, strategy: Strategy, found: Sequence[str]) -> None:
    """A role that is there, that the recipe gives LoRA by name, and where nothing can take one."""
    if adapter.targets != "all-linear":
        return
    depth = depth_of(model)
    names = [name for name, _ in model.named_parameters() if _open(name, adapter)]
    there, reached = {role_of(name, depth) for name in names}, {role_of(name, depth) for name in found}
    for role, treatment in strategy.treatments().items():
        if treatment.mode != "lora" or not strategy.stated(role) or role in reached:
            continue
        if role in there or getattr(strategy, role) is not None:
            why = "no linear layer (experts are stacked)" if role in there else NOBODY
            raise UserError(
                f'strategy.{role}.mode = "lora": {why} to put an adapter on',
                fix=f'set strategy.{role}.mode = "full" or "frozen", or name layers and {EXPERTS!r} in adapter.targets',
            )
