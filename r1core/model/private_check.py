"""What of a recipe does not go with a privacy policy, told before any weight is loaded. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r1core.model.strategy import Refusal
from r1core.recipe.schema import Recipe

PER_SAMPLE = ("sft", "multitask")
"""Objectives whose loss is a sum over samples; any other is refused here, and a pool for a reason of its own."""
APART = ("padded", "none")
"""Packings in which every row is a sequence of its own."""


def refusals(recipe: Recipe, private: str, layers: Sequence[str] = ()) -> Iterator[Refusal]:
    """Everything that would take the gradient of one row, or the account of what is read, out of the policy's hands.

    Parameters
    ----------
    private : name of the privacy policy.
    layers : names of the extra layers of the run.
    """
    if recipe.run.privacy == "none":
        yield Refusal("run.privacy", f'run.privacy = "none" beside {private}', "one of them", "leave one out")
    if recipe.train.objective not in PER_SAMPLE:
        found = f'train.objective = "{recipe.train.objective}" under {private}: its loss is not one of each sample'
        yield Refusal("train.objective", found, "sft", 'set train.objective = "sft"')
    if recipe.train.packing not in APART:
        found = f'train.packing = "{recipe.train.packing}" under {private}: rows of several units in one sequence'
        yield Refusal("train.packing", found, "padded or none", 'set train.packing = "padded"')
    if recipe.model.processes > 1:
        yield Refusal("model.processes", f"several processes under {private}", "one", "set model.processes = 1")
    if recipe.curriculum.difficulty:
        found = f"a curriculum under {private}, which draws its rows at random"
        yield Refusal("curriculum.difficulty", found, "none", 'set curriculum.difficulty = ""')
    if recipe.adapter.dropout:
        found = f"adapter.dropout under {private}: there is no exact rule for the gradient of one row"
        yield Refusal("adapter.dropout", found, "0", "set adapter.dropout = 0")
    for role, treatment in recipe.strategy.treatments().items():
        if treatment.mode == "full" and role in ("embeddings", "norms", "output"):
            found = f'strategy.{role}.mode = "full" under {private}: there is no exact rule for the gradient of one row'
            yield Refusal("strategy", found, "linear layers of the blocks", f'set strategy.{role}.mode = "frozen"')
    for layer in layers:
        found = f"the extra layer {layer} under {private}: there is no exact rule for the gradient of one row"
        yield Refusal("run.plugins", found, "no extra layers", "switch the layer off, or leave its plugin out")
    if recipe.data.files is not None and recipe.data.kind == "choice" and recipe.data.choices is None:
        found = f"a label set that is read off private rows under {private}: a rare label singles somebody out"
        yield Refusal("data.choices", found, "a stated one", "list the labels in data.choices")
    if recipe.evaluate.baselines:
        found = f"baselines under {private}: they are fitted on private rows, and their figures are told"
        yield Refusal("evaluate.baselines", found, "none", "set evaluate.baselines = false")
