"""What does not go with the start that a recipe states, told before any weight is loaded. Torch-free.

That is `adapter.initial`, `adapter.freeze_a`, `train.router_temperature` and `train.balance_passes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from r1core.api import UserError
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
    of_routers = {
        "train.router_temperature": recipe.train.router_temperature is not None,
        "train.balance_passes": recipe.train.balance_passes > 0,
    }
    for key in (key for key, asked in of_routers.items() if asked and not trained):
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
