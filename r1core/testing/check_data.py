"""Checks of rewards, difficulties, metrics, quality gates, augmentations, data sets and model sources."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from r1core import api
from r1core.testing.samples import GIVE_EXAMPLES


def reward(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one reward: deterministic, finite or None, fine with columns that it does not know."""
    prompts = [example.messages[-1].content for example in examples]
    fields: dict[str, list[Any]] = {
        name: [example.fields.get(name) for example in examples]
        for name in {"unknown_column", *(name for example in examples for name in example.fields)}
    }
    fields["label"] = [example.fields.get("label", "Cardiology") for example in examples]
    first, second = (list(component(prompts, prompts[::-1], **fields)) for _ in range(2))
    if first != second:
        yield f"{component.name}: two calls on equal input gave different scores"
    for score in first:
        if score is not None and not (isinstance(score, (int, float)) and math.isfinite(score)):
            yield f"{component.name}: score {score!r} is neither a finite number nor None"
    if all(score is None for score in first):
        yield f"{component.name}: it abstains on all records, so its scores were not checked; {GIVE_EXAMPLES}"
    if len(component([], [])) != 0:
        yield f"{component.name}: no completions must give no scores"


def difficulty(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one difficulty: a finite number, the same each time, and the record left as it was."""
    for example in examples:
        before = copy.deepcopy(example)
        try:
            first, second = component(example), component(example)
        except api.PluginError as error:  # its guard tells of what is no finite number
            yield str(error)
            continue
        if first != second or example != before:
            yield f"{component.name} on {example.id!r}: not pure"


def metric(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one metric: a finite number, and perfect answers not worse than wrong ones.

    Only a metric that compares has perfect answers: whoever gives the same answers the same number, whatever the
    references are, measures the answers themselves (their length, say), and may prefer any of them.
    """
    references = [f"answer {number}" for number in range(len(examples))]
    wrong = ["something else"] * len(examples)
    perfect, poor = component(references, references, examples), component(wrong, references, examples)
    if not (math.isfinite(perfect) and math.isfinite(poor)):
        yield f"{component.name}: {perfect!r} and {poor!r} are not both finite numbers"
        return
    compares = component(references, wrong, examples) != perfect or component(wrong, wrong, examples) != poor
    if compares and ((perfect < poor) if component.higher_is_better else (perfect > poor)):
        yield f"{component.name}: wrong answers ({poor}) are better than perfect ones ({perfect})"


def quality_gate(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one gate: a short reason or None, and the record left as it was."""
    for example in examples:
        before = copy.deepcopy(example)
        first, second = component(example), component(example)
        if not (first is None or (isinstance(first, str) and first)):
            yield f"{component.name} on {example.id!r}: returned {first!r}, expected a reason or None"
        if first != second or example != before:
            yield f"{component.name} on {example.id!r}: not pure"


def augment(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one augmentation: examples, the same ones for the same generator."""
    for example in examples:
        before = copy.deepcopy(example)
        first, second = (list(component(example, np.random.default_rng(7))) for _ in range(2))
        if first != second:
            yield f"{component.name} on {example.id!r}: equal generators gave different examples"
        if example != before:
            yield f"{component.name} on {example.id!r}: it changed its input"
        if not all(isinstance(one, api.Example) for one in first):
            yield f"{component.name} on {example.id!r}: not all that it yields is an Example"


def dataset_source(plugin: str, component: Any, examples: Sequence[api.Example], *, rows: int = 200) -> Iterator[str]:
    """Failures of one data set: tasks, unique ids, answers last and among the choices, in the first rows."""
    if not component.tasks:
        yield f"{component.name}: it has no task"
    seen: dict[str, str] = {}
    splits: tuple[Any, ...] = ("train", "val", "test")
    for split in splits:
        for example in itertools.islice(component.read(split), rows):
            at = f"{component.name} {split} {example.id!r}"
            if example.id in seen:
                yield f"{at}: its id was seen in {seen[example.id]} already"
            seen[example.id] = split
            task = component.tasks.get(example.task)
            if task is None:
                yield f"{at}: task {example.task!r} is not one of {', '.join(component.tasks)}"
            elif not example.messages or example.messages[-1].role != "assistant":
                yield f"{at}: the last message is not the assistant's gold answer"
            elif task.choices and example.messages[-1].content not in task.choices:
                yield f"{at}: answer {example.messages[-1].content!r} is not among the task's choices"
    if not seen:
        yield f"{component.name}: it has no rows"
    if component.fingerprint() != component.fingerprint():
        yield f"{component.name}: its fingerprint changes between calls"


def model_source(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one model source: names with a description. Nothing is unpacked."""
    names = component.names()
    if not names:
        yield "a model source names no model"
    for name, description in names.items():
        if not description:
            yield f"model {name!r} has no description"
