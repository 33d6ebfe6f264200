"""The chain of runs that a continued run goes on from: read, never written.

Each run of the chain stands for one task: its prepared records, its label set and its adapter. Not covered: a run that
another command is writing at the same time, and runs of several tasks.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from r1core.api import Task, UserError
from r1core.recipe.continual import Continual
from r1core.recipe.schema import Recipe
from r1core.runs.directory import RunDirectory
from r1core.runs.manifest import Manifest

KEY = "continual.from"
"""The key that names the earlier run; messages begin with it, so that `check` finds its line."""


@dataclass(frozen=True)
class EarlierRun:
    """One run of the chain, as it stands on disk."""

    run: RunDirectory
    recipe: Recipe

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.recipe.run.name

    @property
    def naive(self) -> Path | None:
        """The adapter of plain sequential tuning up to this run, where it was trained."""
        found = self.run.naive / "adapter"
        return found if found.is_dir() else None

    @cached_property
    def manifest(self) -> Manifest:
        """What the run says of itself."""
        return Manifest(self.run)

    @cached_property
    def task(self) -> Task:
        """The run's task, with the label set that it was trained with.

        Raises
        ------
        UserError : where its data card does not state exactly one.
        """
        again = f"r1core prepare {self.run.path} --force"
        try:
            tasks = json.loads(self.run.data_card.read_bytes())["tasks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            found = f"{self.run.data_card} does not state the run's task"
            raise UserError(f"{KEY}: {found} (another version wrote it, or it is damaged)", fix=again) from error
        if len(tasks) != 1:
            raise UserError(
                f"{KEY}: {self.run.path} has {len(tasks)} tasks; a run of a chain has one", fix="name another"
            )
        [(name, stated)] = tasks.items()
        return Task(name, choices=tuple(stated["choices"]), cluster=stated["cluster"])


def chain_of(start: Path, own: Path) -> list[EarlierRun]:
    """The runs before `own`, oldest first, from the one that it continues.

    Raises
    ------
    UserError : for a run that is not there, is no run, or comes back to itself.
    """
    found: list[EarlierRun] = []
    seen, path = {own.absolute().resolve()}, start
    while True:
        if path.resolve() in seen:
            said = "this run itself" if not found else "a run that continues itself"
            raise UserError(f"{KEY}: {path} is {said}", fix="name an earlier run, or another directory with --run")
        seen.add(path.resolve())
        found.append(_opened(path, found))
        earlier = found[-1].recipe.continual.from_
        if earlier is None:
            return found[::-1]
        path = earlier


def _opened(path: Path, later: Sequence[EarlierRun]) -> EarlierRun:
    through = f" (which {later[-1].run.path} continues)" if later else ""
    frozen = path / "recipe.toml"
    if not frozen.is_file():
        fix = "bring the directory back" if later else "bring the directory back, or name the run with --continue RUN"
        raise UserError(f"{KEY}: no run at {path}{through}: no recipe.toml", fix=fix)
    try:
        recipe = Recipe.model_validate(tomllib.loads(frozen.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        said = f"{KEY}: {frozen}{through} is not a recipe that this version reads: {str(error).splitlines()[0]}"
        raise UserError(said, fix="use the version that wrote it") from error
    return EarlierRun(RunDirectory(path, create=False), recipe)


def files_read(stage: str, chain: Sequence[EarlierRun], config: Continual) -> dict[str, Path]:
    """What of the earlier runs a stage reads, by names for the manifest: adapters and records."""
    found: dict[str, Path] = {}
    if not chain:
        return found
    if stage == "train":
        found |= _adapters("train", chain[-1:], naive=config.naive)
        if config.replay or config.ewc:
            found |= {f"train: {label}: train.jsonl": one.run.split("train") for label, one in _labelled(chain)}
    if stage == "evaluate":
        found |= _adapters("evaluate", chain, naive=config.naive)
        for label, one in _labelled(chain):
            found[f"evaluate: {label}: test.jsonl"] = one.run.split("test")
            found[f"evaluate: {label}: card.json"] = one.run.data_card
    return found


def _adapters(stage: str, chain: Sequence[EarlierRun], *, naive: bool) -> dict[str, Path]:
    found = {f"{stage}: {label}: adapter": one.run.adapter for label, one in _labelled(chain)}
    if naive:
        others = {f"{stage}: {label}: naive/adapter": one.naive for label, one in _labelled(chain)}
        found |= {name: path for name, path in others.items() if path is not None}
    return found


def _labelled(chain: Sequence[EarlierRun]) -> list[tuple[str, EarlierRun]]:
    return list(zip(labels(chain), chain, strict=True))


def labels(chain: Sequence[EarlierRun], *last: str) -> list[str]:
    """A name for each run, told apart where two are called alike; `last` are those of further runs."""
    names = [*(one.name for one in chain), *last]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]
