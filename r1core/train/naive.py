"""Plain sequential tuning, to compare a continued run with: the same new rows in the same steps, and nothing else.

It goes on from the adapter of the earlier run's own plain tuning, where it has one, so that a chain is compared with a
chain. Everything of it stands in `naive/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from r1core.api import JSON
from r1core.model.probe import Compute
from r1core.runs import checkpoints
from r1core.runs.directory import RunDirectory
from r1core.train.continual import new_part
from r1core.train.stage import train
from r1core.workbench import Workbench

Progress = Callable[[int, int, Mapping[str, float]], None]


class NaiveRun(RunDirectory):
    """The folder `naive/` of a run, with that run's own data."""

    def __init__(self, whole: RunDirectory) -> None:
        whole.naive.mkdir(mode=0o700, exist_ok=True)
        super().__init__(whole.naive, create=False)
        self._data = whole.data

    @property
    def data(self) -> Path:
        """The whole run's."""
        return self._data


def train_and_compare(
    bench: Workbench, compute: Compute, digest: str, progress: Progress, tell: Callable[[str], None]
) -> dict[str, JSON]:
    """Train as the recipe says; then, where it continues a run, plainly too. The arguments are those of `train`."""
    first = bench.crew.rank == 0
    if first and not (bench.earlier and bench.recipe.continual.ewc):
        shutil.rmtree(bench.run.continual, ignore_errors=True)  # of an earlier recipe
    if first and not bench.compared:
        shutil.rmtree(bench.run.naive, ignore_errors=True)
    figures = train(bench, compute, digest, progress, tell)
    if bench.compared:
        tell("  naive sequential tuning, to compare with: the same steps without replay and penalty")
        other = naive_bench(bench)
        plain = train(other, compute, digest, progress, tell)
        if first:
            checkpoints.clear(other.run)
            shutil.rmtree(other.run.checkpoints, ignore_errors=True)
            figures["naive_train_cpu_seconds"] = plain["train_cpu_seconds"]
    return figures


def naive_bench(bench: Workbench) -> Workbench:
    """The same run without replay and penalty, writing to `naive/`; observers are not told of it."""
    off = bench.recipe.continual.model_copy(update={"replay": 0.0, "ewc": 0.0, "naive": False})
    recipe = bench.recipe.model_copy(update={"train": new_part(bench), "continual": off})
    other = replace(bench, recipe=recipe, directory=bench.run.naive)
    vars(other).update(run=NaiveRun(bench.run), callbacks=[], start=bench.earlier[-1].naive or bench.start)
    return other
