"""What of a recipe does not go with weights that are cut over processes. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from r1core.model.strategy import Refusal
from r1core.recipe.schema import Recipe

FSDP2 = 'train.parallel = "fsdp2" cuts the weights'
DDP = 'set train.parallel = "ddp"'


def refusals(recipe: Recipe, private: str | None) -> Iterator[Refusal]:
    """Everything that FSDP2 is refused beside.

    Parameters
    ----------
    private : name of the privacy policy, if there is one.
    """
    if recipe.train.parallel != "fsdp2":
        return
    if recipe.train.objective == "multitask":
        yield Refusal("train.parallel", f"{FSDP2}, which a pool of adapters reads whole", "ddp", DDP)
    if recipe.continual.from_ is not None:
        yield Refusal("train.parallel", f"{FSDP2}, and continual.from goes on from whole ones", "ddp", DDP)
    if recipe.curriculum.difficulty == "loss":
        fix = f"{DDP}, or take difficulty from a column or a plugin"
        yield Refusal("train.parallel", f'{FSDP2}, and curriculum.difficulty = "loss" needs them whole', "ddp", fix)
    if private is not None:
        yield Refusal("train.parallel", f"{FSDP2}, and {private} trains in one process", "ddp", DDP)
