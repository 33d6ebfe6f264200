"""`check`: what would stop a run, found before any weight is loaded.

The recipe's own problems are found while it is opened; here the plugins' `validate` hooks, the model, the data (a few
records through the whole chain), the reward signatures, the constraints, disk, memory and time are tried for real.
Nothing here imports torch or transformers unless the model's tokenizer or a plugin needs it.
"""

from __future__ import annotations

import inspect
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from r1core import check_continual, check_data
from r1core.api import JSON, PluginError, Problem, R1Error, UserError
from r1core.compose import RewardSum
from r1core.data.images import IMAGE
from r1core.data.thinking import CLOSE, no_room
from r1core.decode.prompt import read_facts
from r1core.forecast.here import here, machine_bytes
from r1core.forecast.memory import library_bytes, memory_of
from r1core.forecast.shape import read_shape
from r1core.forecast.table import table_of
from r1core.forecast.words import memory_line, time_line
from r1core.forecast.work import Step
from r1core.model import labels_check, parallel_check, pool_check, private_check, start_check
from r1core.model.fusion import vision_check
from r1core.model.resolve import StoredConfig, context_length
from r1core.model.strategy import refusals
from r1core.runs.verify import trained_adapter
from r1core.train.curriculum import unreached
from r1core.train.difficulty import of_records
from r1core.workbench import Workbench, column_problems

log = logging.getLogger("r1core.check")

SITE = re.compile(r"embedding|head|block:(-?[0-9]{1,6})")
"""Where an extra layer may stand (see `r1core.model.layers.site_module`)."""
RUN_BYTES = 500_000_000
"""Disk that a run of a small model takes: two checkpoints, the adapter, predictions (rounded up)."""


def check(bench: Workbench, *, deep: bool = False) -> tuple[list[Problem], dict[str, JSON]]:
    """All problems, and a forecast (rows, time of training, disk, memory); nothing is written.

    Parameters
    ----------
    deep : also build the extra layers on a tiny model and try them on random hidden states.
    """
    forecast: dict[str, JSON] = {"data": bench.recipe.data.source or "files"}
    found = before(bench, forecast)
    steps: list[Callable[[], Iterator[Problem]]] = [
        lambda: _rewards(bench),
        lambda: _placed(bench),
        lambda: _room(bench, forecast),
    ]
    if all(problem.severity == "warning" for problem in found):  # the records need the tokenizer and the columns
        sample = check_data.Sample()
        steps = [
            lambda: check_data.problems(bench, sample),
            lambda: _reasoning(bench, sample),
            lambda: _difficulty(bench, sample),
            lambda: _unprotected(bench, sample),
            lambda: _time(bench, sample, forecast),
            *steps,
        ]
    if deep:
        steps.append(lambda: _layers(bench))
    return _collected(bench, steps, found), forecast


def before(bench: Workbench, forecast: dict[str, JSON] | None = None) -> list[Problem]:
    """What can be told without a tokenizer or a weight, in about a second: every run of a stage asks this first."""
    known: dict[str, JSON] = {} if forecast is None else forecast
    steps: list[Callable[[], Iterator[Problem]]] = [
        lambda: iter(bench.components("validate", plan=bench.plan())),
        lambda: _model(bench, known),
        lambda: _chain(bench),
        lambda: _adapter(bench),
        lambda: _vision(bench),
        lambda: _curriculum(bench),
        lambda: check_continual.problems(bench),
        lambda: iter(column_problems(bench.recipe.data, bench.resolved)),
        lambda: check_data.doubts(bench.recipe.data, bench.resolved),
        lambda: _files(bench),
    ]
    return _collected(bench, steps, [], fatal=forecast is None)


def _collected(
    bench: Workbench, steps: Iterable[Callable[[], Iterator[Problem]]], found: list[Problem], fatal: bool = False
) -> list[Problem]:
    """Add each step's problems; what is no mistake of the user's (a plugin that raises) passes where `fatal`."""
    for step in steps:
        try:
            for problem in step():
                found.append(problem)  # one by one: what was told before an error stays
        except R1Error as error:
            if fatal and not isinstance(error, UserError):
                raise
            log.debug("the failure in full", exc_info=error)
            problem = _problem(bench, error)
            if problem not in found:
                found.append(problem)
    return list(dict.fromkeys(found))


def _problem(bench: Workbench, error: R1Error) -> Problem:
    """An error as a problem, at the line of the key that its message begins with."""
    key = re.match(r"(\w+\.[\w./-]+): ", str(error))
    where = bench.resolved.where(key[1] if key else "")
    if isinstance(error, PluginError):
        where = _named(bench, error.plugin)
    fix = error.fix if isinstance(error, UserError) else ""
    return Problem(where, str(error), "", fix)


def _named(bench: Workbench, plugin: str) -> str:
    """Where the user asked for a plugin."""
    names = bench.recipe.run.plugins
    if plugin in names:
        return bench.resolved.where(f"run.plugins.{names.index(plugin)}")
    return next((f"--plugin {file}" for file in bench.selection.files if file.stem == plugin), "recipe")


def _model(bench: Workbench, forecast: dict[str, JSON]) -> Iterator[Problem]:
    base = bench.base
    forecast["model"] = base.name
    directory = base.directory()
    context, wanted = context_length(directory), bench.recipe.data.max_tokens
    if context is not None and wanted > context:
        where = bench.resolved.where("data.max_tokens")
        yield Problem(where, f"data.max_tokens = {wanted}", f"at most the model's context, {context}", "lower it")


def _chain(bench: Workbench) -> Iterator[Problem]:
    _ = bench.chain, bench.constraints, bench.gates, bench.augments, bench.metrics, bench.callbacks, bench.difficulty
    _ = bench.public
    if bench.metrics and all(task.choices for task in bench.tasks.values()):
        where = bench.resolved.where("evaluate.metrics")
        found = "further metrics on a task with a label set, which is measured by accuracy, macro-F1 and top-3"
        yield Problem(where, found, "a free-text task", "drop evaluate.metrics", severity="warning")
    if bench.recipe.model.processes > 1 and sys.platform != "linux":
        where = bench.resolved.where("model.processes")
        yield Problem(where, f"several processes on {sys.platform}", "one, or Linux", "set model.processes = 1")
    yield from _private(bench)


def _private(bench: Workbench) -> Iterator[Problem]:
    """What a privacy policy refuses."""
    private = bench.privacy
    if private is None:
        return
    for step in bench.chain.steps:
        for flag in ("fits_on_data", "cross_record"):
            if getattr(step, flag, False):
                yield Problem(step.name, f"{flag} under {private.name}", "a step that sees one record", "drop it")
    directory = Path(bench.base.directory())
    layers = [spec.name for spec in bench.layer_specs(StoredConfig(directory))] if directory.is_dir() else []
    for key, said, expected, fix in private_check.refusals(bench.recipe, private.name, layers):
        yield Problem(bench.resolved.where(key), said, expected, fix)


def _adapter(bench: Workbench) -> Iterator[Problem]:
    """What the kind of adapter and the strategy do not go together with."""
    private = bench.privacy.name if bench.privacy is not None else None
    for key, found, expected, fix in refusals(bench.recipe, Path(bench.base.directory()), private):
        yield Problem(bench.resolved.where(key), found, expected, fix)
    for key, found, expected, fix in parallel_check.refusals(bench.recipe, private):
        yield Problem(bench.resolved.where(key), found, expected, fix)
    for key, found, expected, fix in start_check.refusals(bench.recipe, private):
        yield Problem(bench.resolved.where(key), found, expected, fix)
    for key, found, expected, fix in start_check.of_model(bench.recipe, Path(bench.base.directory())):
        yield Problem(bench.resolved.where(key), found, expected, fix)
    train = bench.recipe.train
    by_tasks = train.objective == "multitask" or train.softmax == "labels"
    readable = by_tasks and not column_problems(bench.recipe.data, bench.resolved)
    tasks = list(bench.tasks) if readable and train.objective == "multitask" else []
    for key, found, expected, fix in pool_check.refusals(bench.recipe, tasks, bench.base.fingerprint, private):
        yield Problem(bench.resolved.where(key), found, expected, fix)
    for key, found, expected, fix in labels_check.refusals(bench.recipe, bench.tasks) if readable else ():
        yield Problem(bench.resolved.where(key), found, expected, fix)
    yield from _extended(bench)


def _vision(bench: Workbench) -> Iterator[Problem]:
    """What stands against images, or against a tower without them."""
    for key, found, expected, fix in vision_check.refusals(bench.recipe):
        yield Problem(bench.resolved.where(key), found, expected, fix)


def _extended(bench: Workbench) -> Iterator[Problem]:
    """What stands against adding tasks to the trained pool of another run."""
    extends, directory = bench.recipe.pool.extends, Path(bench.base.directory())
    if extends is None or bench.recipe.train.objective != "multitask":
        return
    where = bench.resolved.where("pool.extends")
    if extends.resolve() == bench.directory.absolute().resolve():
        yield Problem(where, f"pool.extends = {extends}, which is this run", "another run", "name a new one with --run")
        return
    if (extends / "adapter" / pool_check.CONFIG).is_file():  # where there is none, that has been told
        try:
            trained_adapter(extends)
        except UserError as error:
            yield Problem(where, f"pool.extends: {error}", "a trained run", error.fix)
    if directory.is_dir():
        for spec in bench.layer_specs(StoredConfig(directory)):
            found = f"{spec.name} beside pool.extends: a layer trained on new tasks changes earlier ones' answers"
            yield Problem(where, found, "no extra layers", "leave its plugin out")


def _curriculum(bench: Workbench, rows: int | None = None) -> Iterator[Problem]:
    """What stands against the curriculum, as far as its recipe and the number of training rows tell."""
    config = bench.recipe.curriculum
    _, new = bench.recipe.continual.split(bench.recipe.train.batch_size)
    train = bench.recipe.train.model_copy(update={"batch_size": max(1, new)})  # a step's new rows, beside replayed ones
    if config.difficulty and (late := unreached(config, train, rows)):
        where = bench.resolved.where("curriculum.stages")
        fix = "train longer, or lower `until`"
        yield Problem(where, late, "a training that gets to every stage", fix, severity="warning")


def _difficulty(bench: Workbench, sample: check_data.Sample) -> Iterator[Problem]:
    """Try the curriculum's measure on the sampled records, where it does not take the model."""
    if bench.recipe.curriculum.difficulty:
        of_records(bench, sample.records)
        used, known = sample.used(bench.recipe.data.max_rows)
        yield from _curriculum(bench, used if known else None)


def _reasoning(bench: Workbench, sample: check_data.Sample) -> Iterator[Problem]:
    """Reasoning that is asked for where the model's chat template has no place for it, or trained and never asked."""
    recipe, blocks = bench.recipe, bench.renderer.blocks
    asked = {f"{table}.reasoning_tokens": getattr(recipe, table).reasoning_tokens for table in ("generate", "evaluate")}
    for key, tokens in asked.items():
        if refusal := no_room(blocks, key, tokens):
            yield Problem(bench.resolved.where(key), str(refusal), "", refusal.fix)
    if recipe.data.columns.reasoning and blocks is None:
        found = f"data.columns.reasoning, and the chat template of {bench.base.name} has no <think> block"
        yield Problem(bench.resolved.where("data.columns.reasoning"), found, "", "leave it out, or take another model")
    if blocks is not None and any(CLOSE in label for task in bench.tasks.values() for label in task.choices):
        found = f"a label with a {CLOSE} block before it"
        fix = "put the reasoning into a column of its own, data.columns.reasoning"
        yield Problem(bench.resolved.where("data.columns.answer"), found, "the label alone", fix)
    trained = any(blocks.of_row(row).reasoning for row in sample.records) if blocks is not None else False
    for key in (key for key, tokens in asked.items() if trained and not tokens):
        found = f"{key} = 0: answers come without the reasoning that the rows have"
        yield Problem(bench.resolved.where(key), found, "", f"set {key}, 256 for instance", severity="warning")


def _unprotected(bench: Workbench, sample: check_data.Sample) -> Iterator[Problem]:
    """Rows of groups, of patients for instance, that are to be trained on without a policy."""
    grouped = bench.recipe.data.columns.group or any(record.group is not None for record in sample.records)
    if grouped and bench.privacy is None and bench.recipe.run.privacy == "required":
        where = bench.resolved.where("data.columns.group" if bench.recipe.data.columns.group else "run.privacy")
        found = "rows of groups (patients, clients) and no privacy policy"
        fix = 'add "dp" to run.plugins and set plugins.dp.dataset_id, or set run.privacy = "none" and answer for it'
        yield Problem(where, found, 'a policy, or run.privacy = "none"', fix)


def _time(bench: Workbench, sample: check_data.Sample, forecast: dict[str, JSON]) -> Iterator[Problem]:
    """Forecast time and memory of training on all records from the sample."""
    if not sample.encoded:
        return
    forecast |= check_continual.forecast(bench)
    used, known = sample.used(bench.recipe.data.max_rows)
    aside = f", {sample.aside:,} set aside" if sample.aside else ""
    forecast["rows"] = f"{'' if known else 'more than '}{used:,} to train on{aside}"
    shape = read_shape(Path(bench.base.directory()))
    if shape is None:
        forecast["time"] = "not told: the model's safetensors are not on this machine"
        return
    recipe = bench.recipe
    table = table_of(shape, recipe.adapter, recipe.strategy, recipe.train)
    rows = sample.rows_like(recipe)
    told = here(table, rows, recipe, private=bench.privacy is not None)
    if isinstance(told, str):
        forecast["time"] = told
        return
    forecast["time"] = time_line(told) if known else f"{time_line(told)}; not all rows were counted, so longer"
    forecast["memory"] = memory_line(told)
    if not told.fits:
        fix = "a smaller model, model.processes = 1, or fewer rows in train.batch_size"
        cut = recipe.train.parallel == "fsdp2"
        line = memory_line(told) + (" (told for the whole model on one device; fsdp2 cuts it)" if cut else "")
        yield Problem("memory", line, "as much as is needed", fix, severity="warning" if cut else "error")


def _rewards(bench: Workbench) -> Iterator[Problem]:
    rewards = bench.components("reward")
    RewardSum(rewards, bench.recipe.rewards)  # names and weights
    for reward in rewards:
        call = inspect.signature(getattr(reward, "inner", reward).__call__).parameters
        names = list(call)
        keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in call.values())
        if names[:2] != ["prompts", "completions"] or not keywords:
            yield Problem(reward.name, f"signature {tuple(names)}", "(prompts, completions, **fields)", "change it")


def _files(bench: Workbench) -> Iterator[Problem]:
    facts = bench.recipe.report.demo_facts
    if facts is not None:
        try:
            read_facts(facts)
        except UserError as error:
            yield Problem(bench.resolved.where("report.demo_facts"), str(error), "", error.fix)


def _room(bench: Workbench, forecast: dict[str, JSON]) -> Iterator[Problem]:
    place = bench.directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    forecast["disk"] = f"about {RUN_BYTES / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free at {place}"
    if free < RUN_BYTES:
        yield Problem(str(place), f"{free / 1e9:.2f} GB free", f"{RUN_BYTES / 1e9:.1f} GB", "free some, or use --run")
    shape = read_shape(Path(bench.base.directory()))
    if shape is not None and "memory" not in forecast and "time" not in forecast:  # no row says what a step takes
        recipe = bench.recipe
        table = table_of(shape, recipe.adapter, recipe.strategy, recipe.train)
        least = memory_of(table, Step(1, 0, 0, 0), bytes_each=2, compiled=False, held=library_bytes()).total
        if least > machine_bytes():
            found = f"{machine_bytes() / 1e9:.1f} GB"
            yield Problem("memory", found, f"more than {least / 1e9:.1f} GB", "use a smaller model")


def _placed(bench: Workbench) -> Iterator[Problem]:
    """Whether extra layers find their site, their spans and what the recipe weighs."""
    directory = Path(bench.base.directory())
    if bench.images is None and not any("extra_layer" in bench.plugins.hooks(name) for name in bench.plugins.names):
        bench.layer_specs(None)  # refuses weights of layers that nobody provides
        return
    if not directory.is_dir():
        return  # the model is not on this machine yet
    shape = read_shape(directory)
    blocks = shape.blocks if shape is not None else 0
    for spec in bench.layer_specs(StoredConfig(directory)):
        own = spec.kinds == (IMAGE.name,)
        where = bench.resolved.where("model.vision.sites") if own else _named(bench, spec.name.partition("/")[0])
        fix = "set model.vision.sites" if own else "mend the plugin"
        place = SITE.fullmatch(spec.site)
        if place is None:
            yield Problem(where, f"{spec.name}: site {spec.site!r}", "embedding, block:i or head", fix)
        elif place[1] and blocks and not -blocks <= int(place[1]) < blocks:
            found = f"{spec.name}: site {spec.site!r}: the model has {blocks} blocks"
            yield Problem(where, found, f"block:0 to block:{blocks - 1}", f"{fix}, or take another model")
        for kind in spec.kinds:
            if kind not in bench.chain.kinds:
                known = ", ".join(sorted(bench.chain.kinds)) or "none"
                found = f"{spec.name}: it reads spans of kind {kind!r}, which no plugin of this run registers"
                yield Problem(where, found, f"one of: {known}", "add the plugin that writes them to run.plugins")
        if spec.loss is None and spec.name in bench.recipe.layers:
            found = f"a weight for {spec.name}, which has no loss of its own"
            place_of_weight = bench.resolved.where(f"layers.{spec.name}")
            yield Problem(place_of_weight, found, "a layer with a loss", "remove the weight", severity="warning")


def _layers(bench: Workbench) -> Iterator[Problem]:
    from r1core.testing import check_layers

    for spec in bench.layer_specs(check_layers.base_config()):
        if spec.kinds == (IMAGE.name,):  # the kit has no images for the tower
            continue
        if spec.site.startswith("block:"):
            spec = replace(spec, site="block:0")  # the tiny model that it is tried on has fewer blocks
        for failure in check_layers.layers(spec.name.partition("/")[0], [spec], bench.chain.kinds):
            yield Problem(spec.name, failure, "", "mend the plugin")
