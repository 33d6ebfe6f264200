"""What does not go with the start that a recipe states, told before any weight is loaded. Torch-free but for an R1.

That is `adapter.initial`, `adapter.freeze_a`, `train.router_temperature` and `train.balance_passes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from r1core.api import UserError
from r1core.errors import line_of
from r1core.model.strategy import Refusal
from r1core.recipe.schema import Recipe
from r1core.recipe.training import Adapter

KEY = "adapter.initial"


def refusals(recipe: Recipe, private: str | None) -> Iterator[Refusal]:
    """Everything that stands against the start that the recipe states.

    Parameters
    ----------
    private : name of the privacy policy, if there is one.
    """
    adapter = recipe.adapter
    trained = [role for role, how in recipe.strategy.treatments().items() if "feed" in role and how.mode == "full"]
    for key in (key for key, asked in of_routers(recipe).items() if asked and not trained):
        fix = 'set strategy.*_feed_forward.mode = "full", or leave it out'
        yield Refusal(key, f"{key}, and no router is trained", "routers that are trained", fix)
    if (refusal := frozen_a(adapter, pool=recipe.train.objective == "multitask")) is not None:
        yield Refusal("adapter.freeze_a", str(refusal), "false", refusal.fix)
    named = [one for one in ("public_source", "public_texts") if getattr(adapter, one) is not None]
    if len(named) > 1:
        yield Refusal(f"adapter.{named[1]}", f"{' and '.join(named)}", "one of them", "leave one out")
    if adapter.initial == "random":
        for one in named:
            found = f'adapter.{one}, which {KEY} = "random" does not read'
            yield Refusal(f"adapter.{one}", found, "another start", f'set {KEY} = "principal"')
        return
    apart = (
        (adapter.kind == "gelu_lora", 'adapter.kind = "gelu_lora"'),
        (recipe.train.objective == "multitask", 'train.objective = "multitask"'),
        (recipe.train.parallel == "fsdp2", 'train.parallel = "fsdp2"'),
    )
    for wrong, beside in apart:
        if wrong:
            yield Refusal(KEY, f'{KEY} = "{adapter.initial}" beside {beside}', "random", f'set {KEY} = "random"')
    if private is not None and _own_rows(recipe):
        found = f'{KEY} = "{adapter.initial}" under {private}: A would be fitted on private rows'
        fix = "name a public data set in adapter.public_source, or a file in adapter.public_texts"
        yield Refusal(KEY, found, "public prompts", fix)


def of_model(recipe: Recipe, directory: Path) -> Iterator[Refusal]:
    """What the base model's own `config.json` stands against; nothing where it cannot be read here.

    An R1's is checked as a whole, which imports torch.
    """
    try:
        stated = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(stated, dict):
        return
    if stated.get("model_type") != "r1":
        kind = stated.get("model_type")
        for key in (key for key, asked in of_routers(recipe).items() if asked):
            yield Refusal(key, f"{key}: a model of type {kind!r} has no routers of R1's", "an R1", "leave it out")
        return
    from huggingface_hub.errors import StrictDataclassError

    from r1core.model.r1.config import R1Config

    try:
        R1Config.from_pretrained(directory, local_files_only=True)
    except (ValueError, StrictDataclassError) as error:
        found = f"{directory}/config.json: {line_of(error, -1)}"
        yield Refusal("model", found, "a configuration that fits", "correct it")


def of_routers(recipe: Recipe) -> dict[str, bool]:
    """Keys that want trained routers of R1's, and whether they are set."""
    return {
        "train.router_temperature": recipe.train.router_temperature is not None,
        "train.balance_passes": recipe.train.balance_passes > 0,
    }


def frozen_a(adapter: Adapter, *, pool: bool) -> UserError | None:
    """Why A cannot stay as it starts; None where it can, or is not asked to."""
    if not adapter.freeze_a or not (pool or adapter.kind == "gelu_lora"):
        return None
    beside = "a pool of adapters" if pool else f'adapter.kind = "{adapter.kind}"'
    return UserError(f"adapter.freeze_a beside {beside}, which trains A and B", fix="set adapter.freeze_a = false")


def _own_rows(recipe: Recipe) -> bool:
    """Whether A would start at what the run's own rows have in them."""
    adapter, files = recipe.adapter, recipe.data.files
    if adapter.public_texts is None:
        return adapter.public_source in (None, recipe.data.source)
    own = [] if files is None else [path for path in (files.train, files.val, files.test) if path is not None]
    return adapter.public_texts.resolve() in [path.resolve() for path in own]
