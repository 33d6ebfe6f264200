"""What of a recipe's adapter and strategy cannot be, told before any weight is loaded. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from r1core.api import UserError
from r1core.model.headers import tensor_shapes
from r1core.model.roles import block_of, depth_at, plain_name, role_of
from r1core.recipe.problems import did_you_mean
from r1core.recipe.schema import Recipe
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter

LATENT = "kv_b_proj"
"""What unfolds keys and values from the cache of DeepSeek's latent attention."""


EXPERTS = "experts"
"""How `adapter.targets` calls the stacked experts of every block."""


class Refusal(NamedTuple):
    """A key of the recipe that does not go together with something else."""

    key: str
    found: str
    expected: str
    fix: str


def refusals(recipe: Recipe, directory: Path, private: str | None) -> Iterator[Refusal]:
    """Everything that does not go together.

    Parameters
    ----------
    directory : of the base model; nothing is told of a tied output head where it is not on this machine.
    private : name of the privacy policy, if there is one.
    """
    kind, strategy = recipe.adapter.kind, recipe.strategy
    if private is not None and kind in ("dora", "gelu_lora"):
        found = f'adapter.kind = "{kind}" under {private}: it has no exact rule for the gradient of one sample'
        yield Refusal("adapter.kind", found, "lora or rslora", 'set adapter.kind = "lora"')
    yield from misplaced(recipe.adapter, strategy, directory)
    pool = recipe.train.objective == "multitask"
    if (refusal := beside_experts(recipe.adapter, pool=pool, private=private)) is not None:
        yield Refusal("adapter.targets", str(refusal), f"targets without {EXPERTS!r}", refusal.fix)
    if pool:
        yield from unfolded(recipe.adapter, directory)
    said = [beside_gelu(strategy)] if kind == "gelu_lora" else []
    if needs_untie(strategy) and not strategy.untie and ties(directory):
        said.append(tied_refusal(strategy))
    for refusal in filter(None, said):
        yield Refusal("strategy", str(refusal), "", refusal.fix)


def misplaced(adapter: Adapter, strategy: Strategy, directory: Path) -> Iterator[Refusal]:
    """Where the adapter would go and the model has no such place, by the names of its stored weights.

    Nothing is told of targets where a model stores experts, whose modules may be called otherwise than their weights.
    """
    targets = adapter.targets if isinstance(adapter.targets, list) else []
    if not targets and not adapter.first_layer:
        return
    weights = {plain_name(name): len(shape) for name, shape in tensor_shapes(directory)}
    blocks = 1 + max((block for name in weights if (block := block_of(name)) is not None), default=-1)
    if blocks and not strategy.given and adapter.first_layer >= blocks:
        found = f"adapter.first_layer = {adapter.first_layer}, and the model has {blocks} blocks"
        yield Refusal("adapter.first_layer", found, f"at most {blocks - 1}", "lower it")
    if not weights or any("expert" in name for name in weights):
        return
    inside = {name for name, dimensions in weights.items() if dimensions > 1 and block_of(name) is not None}
    known = sorted({name.rpartition(".")[2] for name in inside})
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in weights):
            near = did_you_mean(target, known)
            fix = f"did you mean {near!r}?" if near else f"name one of these, or remove {target!r}"
            found = f"adapter.targets: the model has no module {target!r}"
            yield Refusal("adapter.targets", found, f"for instance {', '.join(known)}", fix)


def unfolded(adapter: Adapter, directory: Path) -> Iterator[Refusal]:
    """Where a pool of task adapters would stand on what latent attention applies to all earlier tokens at each step.

    Such a layer is given more tokens than the pass has, and a pool cannot tell their tasks.
    """
    everything = adapter.targets == "all-linear"
    named = {plain_name(name).rpartition(".")[2] for name, _ in tensor_shapes(directory)}
    if LATENT in named and (everything or LATENT in adapter.targets):
        found = f"a pool of task adapters on {LATENT}, which is given earlier tokens again at every step"
        yield Refusal("adapter.targets", found, f"layers without {LATENT}", "name the layers in adapter.targets")


def needs_untie(strategy: Strategy) -> bool:
    """Whether the embedding or the output head is trained, so that they can no longer be one."""
    treatments = strategy.treatments()
    return any(treatments[role].mode != "frozen" for role in ("embeddings", "output"))


def beside_experts(adapter: Adapter, *, pool: bool, private: str | None = None) -> UserError | None:
    """Why no adapter goes on stacked experts; None where one does, or none is asked for.

    Parameters
    ----------
    private : name of the privacy policy, if there is one.
    """
    if adapter.targets == "all-linear" or EXPERTS not in adapter.targets:
        return None
    said = (
        (adapter.kind not in ("lora", "rslora"), f'adapter.kind = "{adapter.kind}", which has no form for experts'),
        (adapter.initial != "random", f'adapter.initial = "{adapter.initial}", which reads linear layers'),
        (pool, "a pool of task adapters, which go on linear layers"),
        (private is not None, f"{private}: there is no exact rule for the gradient of one row of an expert"),
    )
    for wrong, beside in said:
        if wrong:
            return UserError(f"adapter.targets: {EXPERTS!r} with {beside}", fix=f"leave {EXPERTS!r} out")
    return None


def beside_gelu(strategy: Strategy) -> UserError | None:
    """Why GELU-LoRA is refused beside modules that are trained in full; None where there are none."""
    whole = [role for role, treatment in strategy.treatments().items() if treatment.mode == "full"]
    if not whole:
        return None
    fix = f'set strategy.{whole[0]}.mode = "frozen", or adapter.kind = "lora"'
    return UserError(
        f'strategy.{whole[0]}.mode = "full" with adapter.kind = "gelu_lora", which trains A and B only', fix=fix
    )


def tied_refusal(strategy: Strategy) -> UserError:
    """Why a model whose output head is its embedding is refused."""
    role = "output" if strategy.treatments()["output"].mode != "frozen" else "embeddings"
    mode = strategy.treatments()[role].mode
    return UserError(
        f'strategy.{role}.mode = "{mode}": the model\'s output head is tied to its embedding, training changes both',
        fix=f'set strategy.untie = true (the head gets weights of its own), or strategy.{role}.mode = "frozen"',
    )


def first_trained_block(adapter: Adapter, strategy: Strategy, blocks: int) -> int:
    """Index of the lowest block that a backward pass has to reach; `blocks` where it need not reach any."""
    treatments = strategy.treatments()
    if treatments["embeddings"].mode != "frozen":
        return 0
    for index in range(adapter.first_layer, blocks):
        inside = ("norms", f"{depth_at(index, blocks)}_attention", f"{depth_at(index, blocks)}_feed_forward")
        if any(treatments[role].mode != "frozen" for role in inside):
            return index
    return blocks


def ties(directory: Path) -> bool:
    """Whether a model directory's output head is its embedding; False where that is not stated on this machine."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    inner = config.get("text_config")
    for stated in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(stated.get("tie_word_embeddings"), bool):
            return bool(stated["tie_word_embeddings"])
    shapes = tensor_shapes(directory)  # where the configuration leaves it to the class: a tied head is not saved
    return bool(shapes) and not any(len(shape) > 1 and role_of(name, 1) == "output" for name, shape in shapes)
