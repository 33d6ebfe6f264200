"""The tasks of one's own files: one, or as many as a column of theirs names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from r1core.api import Example, Message, Task, UserError
from r1core.recipe.problems import did_you_mean
from r1core.recipe.schema import Data
from r1core.recipe.tasks import OwnTask

LONE = "own"
"""Name of the task where no column names any."""


class OwnTasks:
    """What the recipe says of each task."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.column = data.columns.task
        self._stated = {task.name: task for task in data.tasks}

    def name_of(self, row: Mapping[str, Any]) -> str:
        """The task of a record; "" where its column holds none."""
        if self.column is None:
            return LONE
        value = row.get(self.column)
        return "" if value is None else str(value).strip()

    def asked(self, name: str, text: str) -> tuple[Message, ...]:
        """What the model is asked about the text of a record."""
        system = (Message("system", self._data.system),) if self._data.system else ()
        prompt = self._of(name).prompt or self._data.prompt
        return (*system, Message("user", prompt.replace("{text}", text)))

    def described(self, train: Iterable[Example]) -> dict[str, Task]:
        """The tasks by name, in alphabetical order; a label set that is not stated is every answer of train.

        Raises
        ------
        UserError : when the recipe describes a task of which train has no record.
        """
        answers: dict[str, set[str]] = {}
        for example in train:
            answers.setdefault(example.task, set()).add(str(example.fields["label"]))
        if not answers:  # whatever the reason is, it is told where records are counted
            return {LONE: Task(LONE, description="no record")}
        if absent := [name for name in self._stated if name not in answers]:
            near = did_you_mean(absent[0], answers)
            found = f"data.tasks: train has no record of task {absent[0]!r}, only of {', '.join(sorted(answers))}"
            raise UserError(found, fix=f"did you mean {near!r}?" if near else "remove it, or give records of it")
        return {name: self._task(name, answers[name]) for name in sorted(answers)}

    def _task(self, name: str, answers: set[str]) -> Task:
        said, data = self._of(name), self._data
        choices: tuple[str, ...] = ()
        if (said.kind or ("choice" if said.choices else data.kind)) == "choice":
            choices = tuple(said.choices or data.choices or sorted(answers))
        cluster = "cluster" if data.columns.cluster or data.columns.group else ""
        return Task(name, choices=choices, cluster=cluster, description="records of one's own files")

    def _of(self, name: str) -> OwnTask:
        return self._stated.get(name) or OwnTask(name=name)
