"""The part of `check` that looks at the run to be continued: is it whole, and does this recipe fit what it trained?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from r1core.api import JSON, Problem, UserError
from r1core.data import codec
from r1core.model.headers import tensor_shapes
from r1core.model.resolve import StoredConfig
from r1core.recipe.schema import Model
from r1core.recipe.strategy import ROLES
from r1core.recipe.training import Adapter
from r1core.runs.chain import KEY, EarlierRun
from r1core.runs.verify import trained_adapter
from r1core.workbench import Workbench

CONTINUABLE = ("lora", "rslora", "dora", "gelu_lora")
"""Kinds of adapter whose weights are one set of numbers, trained further as they are."""
SAME = ("kind", "rank", "alpha", "targets", "first_layer", "gelu_scale")
"""Keys of [adapter] that say what the adapter's weights mean."""
SAMPLE_ROWS = 20
"""Rows of each earlier run whose spans are tried."""


def problems(bench: Workbench) -> Iterator[Problem]:
    """What stands against continuing the run that the recipe names; nothing where it names none."""
    if bench.recipe.continual.from_ is None:
        return
    if len(bench.tasks) > 1:
        found = f"{len(bench.tasks)} tasks in a run that continues another, where each run has one"
        fix = "a run for each task in turn, or add tasks to a pool by pool.extends"
        yield Problem(bench.resolved.where(KEY), found, "one task", fix)
    chain = bench.earlier  # refuses what is no chain
    yield from _whole(bench, chain)
    yield from _private(bench, chain)
    yield from _shares(bench)
    last = chain[-1]
    if "multitask" in (bench.recipe.train.objective, last.recipe.train.objective):
        found = 'train.objective = "multitask": a pool of adapters cannot be continued'
        fix = "add tasks to it by pool.extends, or continue a run of one adapter"
        yield Problem(bench.resolved.where("train.objective"), found, "sft", fix)
        return
    yield from _same_base(bench, last)
    yield from _same_adapter(bench, last)
    yield from _same_layers(bench, last)


def forecast(bench: Workbench) -> dict[str, JSON]:
    """What continuing a run costs, in words; nothing where the recipe names none."""
    config = bench.recipe.continual
    if config.from_ is None:
        return {}
    replayed, new = config.split(bench.recipe.train.batch_size)
    parts = [f"from {bench.earlier[-1].run.path}"]
    parts.append(f"{replayed} of {replayed + new} rows of a step are earlier ones" if replayed else "no replay")
    rows = f"{config.fisher_rows} rows of each earlier run are passed forward and backward for the penalty"
    parts.append(f"at most {rows}" if config.ewc else "no penalty")
    if config.naive:
        parts.append("training takes about twice the time below, the comparison with naive tuning included")
    return {"continual": "; ".join(parts)}


def _whole(bench: Workbench, chain: list[EarlierRun]) -> Iterator[Problem]:
    """Whether each run of the chain has what is read of it."""
    where = bench.resolved.where(KEY)
    for one in chain:
        again = f"r1core adapt {one.run.path}"
        try:
            trained_adapter(one.run.path)
        except UserError as error:
            yield Problem(where, str(error), "a trained run", again)
            continue
        for split in ("train", "test"):
            if not one.run.split(split).is_file():
                yield Problem(where, f"{one.run.split(split)} is not there", "the run's prepared records", again)
            elif said := _unreadable(bench, one.run.split(split)):
                yield Problem(where, said, "", "add the plugin that writes them to run.plugins")
        _ = one.task
    data = chain[-1].manifest.read()["inputs"].get("data")
    with contextlib.suppress(UserError):  # of files that are not there, which is told where the columns are checked
        if data is not None and bench.source.fingerprint() == data["sha256"]:
            found = f"the records are those of {chain[-1].run.path} itself"
            fix = "name new ones, for instance --set data.files.train=new.csv"
            yield Problem(bench.resolved.where("data"), found, "records of another task", fix, severity="warning")


def _unreadable(bench: Workbench, path: Path) -> str:
    try:
        for _ in itertools.islice(codec.read(path, bench.chain.kinds), SAMPLE_ROWS):
            pass
    except KeyError as error:
        return f"{path}: rows with spans of kind {error.args[0]!r}, which no plugin of this run registers"
    return ""


def _private(bench: Workbench, chain: list[EarlierRun]) -> Iterator[Problem]:
    """Private rows may be read only as their policy accounts for it."""
    config = bench.recipe.continual
    if bench.privacy is not None:
        said = {
            "replay": "replay reads earlier rows that its account does not hold",
            "ewc": "the penalty is measured on earlier rows that its account does not hold",
            "naive": "the comparison would spend the budget of the new rows a second time",
        }
        for key, why in said.items():
            if value := getattr(config, key):
                off = "false" if key == "naive" else "0"
                found = f"continual.{key} = {_shown(value)} under {bench.privacy.name}: {why}"
                yield Problem(bench.resolved.where(f"continual.{key}"), found, off, f"set continual.{key} = {off}")
        return
    for one in chain:
        for key in ("replay", "ewc"):
            if one.run.privacy_card.exists() and (value := getattr(config, key)):
                found = f"continual.{key} = {value:g}: {one.run.path} was trained privately, and its rows would be read"
                where = bench.resolved.where(f"continual.{key}")
                yield Problem(where, found + " outside of its account", "0", f"set continual.{key} = 0")


def _shares(bench: Workbench) -> Iterator[Problem]:
    """Whether each step has rows of both kinds where replay is asked for."""
    config, size = bench.recipe.continual, bench.recipe.train.batch_size
    replayed, new = config.split(size)
    if config.replay and not (replayed and new):
        found = f"continual.replay = {config.replay:g} of train.batch_size = {size} is {replayed} rows a step"
        fix = "raise train.batch_size, or set continual.replay = 0"
        yield Problem(bench.resolved.where("continual.replay"), found, f"1 to {size - 1}", fix)


def _same_base(bench: Workbench, last: EarlierRun) -> Iterator[Problem]:
    mine, theirs = bench.recipe.model, last.recipe.model
    record = last.manifest.read()["stages"].get("train", {})
    if record and record["parts"]["inputs"].get("model") != bench.base.fingerprint:
        ours, others = _named(mine), _named(theirs)
        key = ours.partition(" ")[0]
        fix = f"set {others}" if ours != others else "bring back the model that it was trained on, or train it again"
        found = f"{ours}: another base model than that of {last.run.path}, or changed since"
        yield Problem(bench.resolved.where(key), found, others, fix)
    same = ("template", "vision")
    yield from _differ(bench, last, "model", same, mine.model_dump(mode="json"), theirs.model_dump(mode="json"))


def _named(model: Model) -> str:
    key = next(name for name in ("base", "path", "hub") if getattr(model, name) is not None)
    return f"model.{key} = {_shown(str(getattr(model, key)))}"


def _same_adapter(bench: Workbench, last: EarlierRun) -> Iterator[Problem]:
    mine, theirs = bench.recipe, last.recipe
    if mine.adapter.kind not in CONTINUABLE:
        found = f'adapter.kind = "{mine.adapter.kind}" cannot be continued'
        yield Problem(bench.resolved.where("adapter.kind"), found, f"one of {', '.join(CONTINUABLE)}", "train anew")
        return
    gelu = "gelu_lora" in (mine.adapter.kind, theirs.adapter.kind)
    unread = {"alpha"} if gelu else {"gelu_scale"}
    keys = tuple(key for key in SAME if key not in unread)
    yield from _differ(bench, last, "adapter", keys, _stated(mine.adapter), _stated(theirs.adapter))
    ours, others = mine.strategy.treatments(), theirs.strategy.treatments()
    modes: list[dict[str, object]] = [{f"{role}.mode": some[role].mode for role in ROLES} for some in (ours, others)]
    modes = [{**m, "untie": r.strategy.untie} for m, r in zip(modes, (mine, theirs), strict=True)]
    yield from _differ(bench, last, "strategy", tuple(modes[0]), *modes)


def _stated(adapter: Adapter) -> dict[str, object]:
    return adapter.model_dump()


def _differ(
    bench: Workbench,
    last: EarlierRun,
    table: str,
    keys: tuple[str, ...],
    mine: Mapping[str, object],
    theirs: Mapping[str, object],
) -> Iterator[Problem]:
    """A problem for each key that says something else than in the earlier run."""
    for key in keys:
        if mine[key] != theirs[key]:
            dotted, wanted = f"{table}.{key}", _shown(theirs[key])
            found = f"{dotted} = {_shown(mine[key])}, and {last.run.path} was trained with {wanted}"
            yield Problem(bench.resolved.where(dotted), found, wanted, f"set {dotted} = {wanted}")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')


def _same_layers(bench: Workbench, last: EarlierRun) -> Iterator[Problem]:
    """Whether the extra layers are those whose weights the earlier run left."""
    directory = Path(bench.base.directory())
    if not directory.is_dir() or not last.run.adapter.is_dir():
        return
    stored = tensor_shapes(last.run.adapter) if last.run.layers.exists() else []
    theirs = {name.partition(":")[0] for name, _ in stored if ":" in name}
    mine = {spec.name for spec in bench.layer_specs(StoredConfig(directory))}
    if mine != theirs:
        found = f"extra layers {', '.join(sorted(mine)) or 'none'}, and {last.run.path} was trained with"
        wanted = ", ".join(sorted(theirs)) or "none"
        fix = f"let run.plugins be {_shown(list(last.recipe.run.plugins))}, as there"
        yield Problem(bench.resolved.where("run.plugins"), f"{found} {wanted}", wanted, fix)
