"""What a softmax over labels does not go together with, told before any weight is loaded. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from r1core.api import Task
from r1core.model.strategy import Refusal
from r1core.recipe.schema import Recipe


def refusals(recipe: Recipe, tasks: Mapping[str, Task]) -> Iterator[Refusal]:
    """Why there is no softmax over labels, where the recipe asks for one.

    Parameters
    ----------
    tasks : of the data set, by name.
    """
    if recipe.train.softmax == "labels" and recipe.data.columns.reasoning and recipe.train.reasoning == "supervised":
        found = 'train.softmax = "labels" with train.reasoning = "supervised", and reasoning is no label'
        yield Refusal("train.reasoning", found, "context", 'set train.reasoning = "context"')
    if recipe.train.softmax != "labels" or (len(tasks) == 1 and all(task.choices for task in tasks.values())):
        return
    beside = f"{len(tasks)} tasks" if len(tasks) > 1 else "free text"
    found = f'train.softmax = "labels" with {beside}'
    yield Refusal("train.softmax", found, "one task with a label set", 'set train.softmax = "vocabulary"')
