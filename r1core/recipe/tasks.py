"""Several tasks in one's own files: [[data.tasks]], and what a label set and a prompt have to be."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from r1core.recipe.table import Mistake, Table

Kind = Literal["choice", "text"]


class OwnTask(Table):
    """[[data.tasks]]: where a task of one's own files differs from what [data] says of all of them."""

    name: str = Field(min_length=1, description="as it stands in the column that `data.columns.task` names")
    kind: Kind | None = Field(default=None, description="absent = `data.kind`")
    choices: list[str] | None = Field(
        default=None, description="label set; absent = `data.choices`, or every answer of the task seen in train"
    )
    prompt: str | None = Field(default=None, description="absent = `data.prompt`")

    @field_validator("prompt")
    @classmethod
    def _takes_the_text(cls, prompt: str | None) -> str | None:
        return prompt if prompt is None else taking_text(prompt)

    @field_validator("choices")
    @classmethod
    def _are_labels(cls, choices: list[str] | None) -> list[str] | None:
        return labels(choices)

    @model_validator(mode="after")
    def _one_kind(self) -> OwnTask:
        if self.kind == "text" and self.choices is not None:
            raise labels_of_free_text()
        return self


def labels_of_free_text() -> Mistake:
    """Why a label set beside `kind = "text"` is refused."""
    return Mistake('a label set with kind = "text"', 'remove `choices`, or set kind = "choice"', key="choices")


def taking_text(prompt: str) -> str:
    """The prompt, which has to have a place for the record's text."""
    if "{text}" not in prompt:
        raise Mistake("no `{text}` in it, so no record would be seen", "write {text} where the record's text goes")
    return prompt


def labels(choices: list[str] | None) -> list[str] | None:
    """The labels, if any are given: not empty, each once, without spaces around it."""
    if choices is None:
        return None
    if not choices:
        raise Mistake("no label in it", "list the labels, or remove `choices`: then it is every answer of train")
    for label, count in Counter(label.strip() for label in choices).items():
        if not label:
            raise Mistake("an empty label", "remove it")
        if count > 1:
            raise Mistake(f"the label {label!r} stands there {count} times", "keep one")
    if outer := [label for label in choices if label != label.strip()]:
        raise Mistake(f"the label {outer[0]!r} has spaces around it, answers have none", "remove them")
    return choices


def named_once(tasks: list[OwnTask], column: str | None) -> None:
    """Refuse tasks that no column tells apart, or that are named twice."""
    if tasks and column is None:
        raise Mistake("tasks, and no column that names each record's", "set data.columns.task", key="tasks")
    twice = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
    if twice:
        raise Mistake(f"the task {twice[0]!r} stands there twice", "keep one", key="tasks")
