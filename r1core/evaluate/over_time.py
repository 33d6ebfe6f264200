"""Every task of a chain of runs, measured with the model of every time: `evaluation/continual.json`.

Times are 0 (the base model) to T (this run), tasks 1 to T. What the run before measured is read from its evaluation
where that still holds (`r1core.evaluate.earlier`); the rest is answered here. All answers are kept as
`over_time-<side>-<time>-<task>.jsonl`, so that a run which continues this one finds them all in one place.

Two sides: `ours`, and `naive`, plain sequential tuning. They share the base model and the first run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from r1core.api import JSON, Example, Task
from r1core.decode.session import Session
from r1core.evaluate import forgetting, free_text, metrics
from r1core.evaluate.earlier import Kept, file_name, kept_by
from r1core.evaluate.metrics import Estimate
from r1core.evaluate.predictions import Prediction, normalise_answer, write_predictions
from r1core.runs.chain import labels
from r1core.runs.files import write_json
from r1core.workbench import Workbench

FILE = "continual.json"
"""Where the matrices stand in `evaluation/`."""
Side = Literal["ours", "naive"]
Grid = dict[tuple[int, int], list[Prediction]]
"""Answers by time and task, tasks counted from 1."""


class Answering(Protocol):
    """Answers the test rows of one task; `system` names the work in progress lines."""

    def __call__(self, session: Session, task: Task, test: Sequence[Example], system: str) -> list[Prediction]:
        """Answer them all, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class OneTask:
    """A task of the chain: the run that learnt it, and the test rows that it is measured on."""

    run: str
    task: Task
    test: Sequence[Example]


def measure(
    bench: Workbench,
    session: Session,
    systems: Mapping[str, list[Prediction]],
    test: Sequence[Example],
    answering: Answering,
    tell: Callable[[str], None],
) -> dict[str, JSON]:
    """Fill the matrix and write it; return figures for the manifest. Nothing happens where the run continues none.

    Parameters
    ----------
    session : of this run's own adapter.
    systems : what `base` and `adapted` have answered to this run's own test rows already.
    """
    for old in [*bench.run.evaluation.glob("over_time-*.jsonl"), bench.run.evaluation / FILE]:
        old.unlink(missing_ok=True)
    if not bench.earlier:
        return {}
    named = labels(bench.earlier, bench.recipe.run.name)
    tasks = [
        OneTask(name, one.task, bench.measured(one.run.split("test")))
        for name, one in zip(named, bench.earlier, strict=False)
    ]
    tasks.append(OneTask(named[-1], next(iter(bench.tasks.values())), test))
    known = kept_by(bench, session.compute, tell)
    last = len(tasks)
    own: Grid = {(last, last): systems["adapted"]} | ({(0, last): systems["base"]} if "base" in systems else {})
    ours = _Side("ours", bench, session, tasks, known, answering, own).grid()
    sides: dict[str, Grid] = {"ours": ours}
    if bench.compared:
        sides["naive"] = _Side("naive", bench, session, tasks, known, answering, ours).grid()
    for side, grid in sides.items():
        for (time, number), answered in grid.items():
            if side == "ours" or time > 1:
                write_predictions(bench.run.evaluation / file_name(side, time, number), answered)
    content = described(tasks, sides)
    write_json(bench.run.evaluation / FILE, content)
    told = content["measures"][content["main"]]
    wanted = ("average_accuracy", "forgetting")
    return {f"{side} {name}": told[side]["figures"][name]["value"] for side in sides for name in wanted}


@dataclass
class _Side:
    """One side's answers, from what is known and what is still to be asked.

    `own` : answers that are this side's too; for `naive`, all of ours, of which base, first run and every time whose
    adapter is the same hold.
    """

    side: Side
    bench: Workbench
    session: Session
    tasks: Sequence[OneTask]
    known: Kept
    answering: Answering
    own: Grid

    def grid(self) -> Grid:
        """Answers of every time to every task."""
        found: Grid = {}
        for time in range(len(self.tasks) + 1):
            shared = self.side == "ours" or self._adapter(time) == self._adapter(time, "ours")
            numbers = range(1, len(self.tasks) + 1)
            for number in numbers:
                kept = self.own.get((time, number)) if shared else None
                kept = kept or self.known(self.side, time, number, self.tasks[number - 1].test)
                if kept is not None:
                    found[time, number] = kept
            missing = [number for number in numbers if (time, number) not in found]
            found |= {(time, number): answered for number, answered in self._asked(time, missing).items()}
        return found

    def _asked(self, time: int, numbers: Sequence[int]) -> dict[int, list[Prediction]]:
        if not numbers:
            return {}
        adapter = self._adapter(time)
        label = f"{self.tasks[time - 1].run}{', naive' if self.side == 'naive' else ''}" if time else "base"

        def ask(session: Session) -> dict[int, list[Prediction]]:
            some = {number: self.tasks[number - 1] for number in numbers}
            return {n: self.answering(session, o.task, o.test, f"{label} on {o.run}") for n, o in some.items()}

        if adapter is None:
            with self.session.as_base():
                return ask(self.session)
        if adapter == self.bench.run.adapter:
            return ask(self.session)
        return ask(Session(self.bench, self.session.compute, adapted=True, adapter=adapter))

    def _adapter(self, time: int, side: Side | None = None) -> Path | None:
        """The adapter of a time; None for the base model."""
        plain = (side or self.side) == "naive"
        if time == 0:
            return None
        if time == len(self.tasks):
            return self.bench.compared[0] if plain else self.bench.run.adapter
        one = self.bench.earlier[time - 1]
        return (one.naive if plain else None) or one.run.adapter


def described(tasks: Sequence[OneTask], sides: Mapping[str, Grid]) -> dict[str, JSON]:
    """The matrices and figures of all sides, as JSON; a standard error that cannot be known is null."""
    measures = (["constrained"] if any(one.task.choices for one in tasks) else []) + ["free"]
    clusters = [[p.cluster for p in sides["ours"][len(tasks), number]] for number in range(1, len(tasks) + 1)]
    content: dict[str, JSON] = {}
    for measure_name in measures:
        scores = {side: _scores(grid, tasks, measure_name) for side, grid in sides.items()}
        told: dict[str, JSON] = {side: _figures(some, clusters) for side, some in scores.items()}
        if "naive" in scores:
            told["difference"] = {
                name: _json(forgetting.difference(name, scores["ours"], scores["naive"], clusters))
                for name in forgetting.FIGURES
            }
        content[measure_name] = told
    stated = [
        {
            "run": o.run,
            "task": o.task.name,
            "rows": len(o.test),
            "labels": len(o.task.choices),
            "metric": _metric(o.task),
        }
        for o in tasks
    ]
    return {"times": ["base", *(one.run for one in tasks)], "tasks": stated, "main": measures[0], "measures": content}


def _metric(task: Task) -> str:
    return "accuracy" if task.choices else "exact_match"


def _figures(scores: forgetting.Scores, clusters: Sequence[Sequence[str]]) -> dict[str, JSON]:
    matrix = [[_json(metrics.mean(cell, own)) for cell, own in zip(line, clusters, strict=True)] for line in scores]
    figures = {name: _json(forgetting.figure(name, scores, clusters)) for name in forgetting.FIGURES}
    return {"matrix": matrix, "figures": figures}


def _scores(grid: Grid, tasks: Sequence[OneTask], measure_name: str) -> list[list[forgetting.Rows]]:
    numbers = range(1, len(tasks) + 1)
    return [
        [np.array([_right(tasks[n - 1].task, p, measure_name) for p in grid[time, n]]) for n in numbers]
        for time in range(len(tasks) + 1)
    ]


def _right(task: Task, answer: Prediction, measure_name: str) -> float:
    """1.0 for a right answer: the best label, the free-running answer where it is that label, or exact match."""
    if not task.choices:
        return free_text.exact_match(answer.text, answer.gold)
    said = answer.constrained if measure_name == "constrained" else normalise_answer(answer.text, task.choices)
    return float(said == answer.gold)


def _json(estimate: Estimate) -> dict[str, JSON]:
    se = None if math.isnan(estimate.se) else estimate.se
    return {"value": estimate.value, "se": se, "n": estimate.n}
