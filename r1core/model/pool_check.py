"""What a pool's adapter directory states, and what of a recipe does not go with a pool. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from r1core.api import JSON, UserError
from r1core.model.own_files import CONFIG, FORMAT, LAYERS
from r1core.model.strategy import Refusal
from r1core.recipe.pool import Pool, Routing
from r1core.recipe.schema import Recipe
from r1core.recipe.training import Adapter

KIND = "pool"
NOT_MERGEABLE = "a pool adds another update for each task, and a weight of the base can hold one"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a pool was made.

    Parameters
    ----------
    scale : what each adapter's update is multiplied by.
    modules : linear layers that it is on.
    cohorts : names of the tasks, those trained together together.
    """

    rank: int
    scale: float
    routing: Routing
    top_k: int
    width: int
    prepend: bool
    modules: tuple[str, ...]
    cohorts: tuple[tuple[str, ...], ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks; the place of a name is the number of its adapter."""
        return tuple(task for cohort in self.cohorts for task in cohort)

    @classmethod
    def of(cls, adapter: Adapter, pool: Pool, modules: tuple[str, ...]) -> Settings:
        """Those that a recipe asks for, without a task as yet."""
        root = math.sqrt(adapter.rank) if adapter.kind == "rslora" else adapter.rank
        told = (pool.routing, pool.top_k, pool.width, pool.prepend)
        return cls(adapter.rank, adapter.alpha / root, *told, modules)

    @classmethod
    def read(cls, directory: Path) -> Settings:
        """Those that an adapter directory states.

        Raises
        ------
        UserError : when there is no pool in it, or one of another format.
        """
        path = directory / CONFIG
        fix = "train again, or use the version of r1core that wrote it"
        try:
            stated: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = (stated.pop("format"), stated.pop("kind"))
            if known != (FORMAT, KIND):
                raise UserError(
                    f"{path}: format {known[0]} of kind {known[1]!r}, expected {FORMAT} of {KIND!r}", fix=fix
                )
            stated["modules"] = tuple(map(str, stated["modules"]))
            stated["cohorts"] = tuple(tuple(map(str, tasks)) for tasks in stated["cohorts"])
            if set(stated) != {field.name for field in fields(cls)}:
                raise KeyError(*sorted(set(stated) ^ {field.name for field in fields(cls)}))
            made = cls(**stated)
            numbers = (made.rank, made.scale, made.top_k, made.width)
            if not all(isinstance(n, int | float) and n > 0 for n in numbers) or not made.tasks:
                raise ValueError("a number that is none, or no task")
        except OSError as error:
            raise UserError(f"{path}: no pool of adapters here", fix="train one first") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a pool's description: {error!r}", fix=fix) from error
        return made

    def to_json(self) -> dict[str, JSON]:
        """As `read` reads them."""
        made: dict[str, JSON] = json.loads(json.dumps(asdict(self)))
        return made


def known_tasks(directory: Path) -> tuple[str, ...]:
    """The tasks of the pool in an adapter directory; none where another kind of adapter is there, or nothing."""
    try:
        kind = json.loads((directory / CONFIG).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return ()
    return Settings.read(directory).tasks if kind == KIND else ()


def refusals(recipe: Recipe, tasks: Sequence[str], base: str, private: str | None) -> Iterator[Refusal]:
    """Everything that does not go with a pool over these tasks of the data, or without one.

    Parameters
    ----------
    tasks : names of the data set's tasks; none where they cannot be read, which is told elsewhere.
    base : fingerprint of the base model.
    private : name of the privacy policy, if there is one.
    """
    pool, adapter = recipe.pool, recipe.adapter
    if recipe.train.objective != "multitask":
        if pool.extends is not None:
            found = f'pool.extends with train.objective = "{recipe.train.objective}", which trains no pool'
            yield Refusal("pool.extends", found, "multitask", 'set train.objective = "multitask"')
        return
    if private is not None:
        found = f"a pool of adapters under {private}: it has no exact rule for the gradient of one sample"
        yield Refusal("train.objective", found, "sft", 'set train.objective = "sft"')
    if adapter.kind not in ("lora", "rslora"):
        found = f'adapter.kind = "{adapter.kind}" in a pool'
        yield Refusal("adapter.kind", found, "lora or rslora", 'set adapter.kind = "lora"')
    if adapter.dropout:
        found = f"adapter.dropout = {adapter.dropout} in a pool"
        yield Refusal("adapter.dropout", found, "0", "set adapter.dropout = 0")
    if recipe.train.compile == "on":
        found = 'train.compile = "on" with a pool, whose layers change with the tasks of a batch'
        yield Refusal("train.compile", found, "auto or off", 'set train.compile = "auto"')
    yield from _roles(recipe)
    there: Settings | None = None
    if pool.extends is not None:
        try:
            there = Settings.read(pool.extends / "adapter")
        except UserError as error:
            yield Refusal("pool.extends", str(error), "", error.fix)
            return
        yield from _extended(recipe, there, pool.extends, base)
    if not tasks:
        return
    yield from _tasks(pool, tasks, there)
    task = recipe.report.demo_task
    if recipe.report.demo_prompt and (task or len(tasks) > 1) and task not in tasks:
        found = f"report.demo_task = {task!r}, and the answer is a pool's"
        yield Refusal("report.demo_task", found, f"one of {', '.join(tasks)}", "name the task of the demonstration")


def _roles(recipe: Recipe) -> Iterator[Refusal]:
    for role, treatment in recipe.strategy.treatments().items():
        if treatment.mode == "full" or (role == "output" and treatment.mode != "frozen"):
            found = f'strategy.{role}.mode = "{treatment.mode}" in a pool, which has adapters inside the blocks only'
            yield Refusal("strategy", found, "lora or frozen", f'set strategy.{role}.mode = "frozen"')


def _tasks(pool: Pool, tasks: Sequence[str], there: Settings | None) -> Iterator[Refusal]:
    before = there.tasks if there is not None else ()
    for task in tasks:
        if task in before:
            found = f"task {task!r} is in the pool {pool.extends} already, and stays as it is there"
            yield Refusal("pool.extends", found, "new tasks", "leave its rows out, or give it another name")
    total = len(before) + len(tasks)
    if total > pool.tasks:
        already = f", {len(before)} of them in {pool.extends} already" if before else ""
        found = f"{total} tasks{already}: {', '.join([*before, *tasks])}"
        yield Refusal("pool.tasks", found, f"at most pool.tasks = {pool.tasks}", f"set pool.tasks = {total}")
    if pool.routing == "top_k" and pool.top_k > total:
        found = f"pool.top_k = {pool.top_k} of {total} adapters"
        yield Refusal("pool.top_k", found, f"at most {total}", "lower it")


def _extended(recipe: Recipe, there: Settings, run: Path, base: str) -> Iterator[Refusal]:
    """What stands between the recipe and the pool that it adds tasks to."""
    yield from unlike(Settings.of(recipe.adapter, recipe.pool, ()), there)
    manifest = json.loads((run / "manifest.json").read_bytes()) if (run / "manifest.json").is_file() else {}
    template = manifest.get("recipe", {}).get("model", {}).get("template", recipe.model.template)
    if template != recipe.model.template:
        found = f'model.template = "{recipe.model.template}", and the pool of {run} was trained with "{template}"'
        yield Refusal("model.template", found, template, f'set model.template = "{template}"')
    if (run / "adapter" / LAYERS).is_file():
        found = f"pool.extends: {run} was trained with extra layers, which this run would not have"
        yield Refusal("pool.extends", found, "a pool without extra layers", "train its tasks anew without their plugin")
    made_on = manifest.get("inputs", {}).get("model", {}).get("sha256", base)
    if made_on != base:
        found = f"pool.extends: the pool of {run} was trained on another base model"
        yield Refusal("pool.extends", found, "the same", "take the [model] of that run")


def unlike(wanted: Settings, there: Settings) -> Iterator[Refusal]:
    """What of a recipe differs from the pool that it extends; the modules only where they are known."""
    keys = {
        "rank": "adapter.rank",
        "scale": "adapter.alpha",
        "routing": "pool.routing",
        "top_k": "pool.top_k",
        "width": "pool.width",
        "prepend": "pool.prepend",
        "modules": "adapter.targets",
    }
    for name, key in keys.items():
        ours, theirs = getattr(wanted, name), getattr(there, name)
        if name == "modules" and (not ours or set(ours) == set(theirs)):
            continue
        if name == "top_k" and there.routing != "top_k":
            continue
        if ours != theirs:
            shown = ("other layers", "the layers of that pool") if name == "modules" else (ours, theirs)
            found = f"{key}: {name} {shown[0]}, and the pool that is extended has {shown[1]}"
            yield Refusal(key, found, str(shown[1]), "use the recipe of that run")
