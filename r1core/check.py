"""`check`: what would stop a run, found before any weight is loaded.

The recipe's own problems are found while it is opened; here the plugins' `validate` hooks, the model, the data (a few
records through the whole chain), the reward signatures, the constraints, disk, memory and time are tried for real.
Nothing here imports torch or transformers unless the model's tokenizer or a plugin needs it.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from r1core.api import JSON, Example, Problem, R1Error, UserError
from r1core.compose import RewardSum
from r1core.data.files import FileSource
from r1core.data.prepare import answer_reading
from r1core.data.tokens import Encoded, prompt_of
from r1core.forecast import matmul_speed, matrices, training
from r1core.model.resolve import context_length
from r1core.workbench import Workbench, column_problems

SAMPLE_ROWS = 20
"""Records of each split that go through the chain."""
COUNT_SECONDS = 2.0
"""Training records are counted for at most this long; what is left then is not forecast."""
BYTES_PER_PARAMETER = 4
"""fp32, the larger of the two precisions."""
COPIES = 3
"""Of the weights in memory, at the peak: the model itself, and what a step on short rows keeps."""
LIBRARY_BYTES = 800_000_000
"""Memory of torch, transformers and the plugins: the medical run peaks at 2.4 GB, 1.6 GB of them three copies."""
RUN_BYTES = 500_000_000
"""Disk that a run of a small model takes: two checkpoints, the adapter, predictions (rounded up)."""


@dataclass
class Sample:
    """What stands for all training records: `read` of them, which gave the `encoded` rows; `rows` were counted."""

    read: int = 0
    encoded: list[Encoded] = field(default_factory=list)
    rows: int = 0
    all_counted: bool = False


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
        lambda: _room(bench, forecast),
    ]
    if not found:  # the records need the model's tokenizer and the columns
        sample = Sample()
        steps = [lambda: _data(bench, sample), lambda: _time(bench, sample, forecast), *steps]
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
        lambda: iter(column_problems(bench.recipe.data, bench.resolved)),
        lambda: _files(bench),
    ]
    return _collected(bench, steps, [], fatal=forecast is None)


def _collected(
    bench: Workbench, steps: Iterable[Callable[[], Iterator[Problem]]], found: list[Problem], fatal: bool = False
) -> list[Problem]:
    """Add each step's problems; what is no mistake of the user's (a plugin that raises) passes where `fatal`."""
    for step in steps:
        try:
            found += list(step())
        except R1Error as error:
            if fatal and not isinstance(error, UserError):
                raise
            problem = _problem(bench, error)
            if problem not in found:
                found.append(problem)
    return list(dict.fromkeys(found))


def _problem(bench: Workbench, error: R1Error) -> Problem:
    """An error as a problem, at the line of the key that its message begins with."""
    key = re.match(r"(\w+\.\w+): ", str(error))
    where = bench.resolved.where(key[1] if key else "")
    fix = error.fix if isinstance(error, UserError) else ""
    return Problem(where, str(error), "", fix)


def _model(bench: Workbench, forecast: dict[str, JSON]) -> Iterator[Problem]:
    base = bench.base
    forecast["model"] = base.name
    directory = base.directory()
    context, wanted = context_length(directory), bench.recipe.data.max_tokens
    if context is not None and wanted > context:
        where = bench.resolved.where("data.max_tokens")
        yield Problem(where, f"data.max_tokens = {wanted}", f"at most the model's context, {context}", "lower it")


def _chain(bench: Workbench) -> Iterator[Problem]:
    _ = bench.chain, bench.constraints, bench.gates, bench.augments, bench.metrics, bench.callbacks
    if bench.metrics and bench.task.choices:
        where = bench.resolved.where("evaluate.metrics")
        found = "further metrics on a task with a label set, which is measured by accuracy, macro-F1 and top-3"
        yield Problem(where, found, "a free-text task", "drop evaluate.metrics", severity="warning")
    if bench.recipe.model.processes > 1 and sys.platform != "linux":
        where = bench.resolved.where("model.processes")
        yield Problem(where, f"several processes on {sys.platform}", "one, or Linux", "set model.processes = 1")
    private = bench.privacy
    if private is not None:
        for step in bench.chain.steps:
            for flag in ("fits_on_data", "cross_record"):
                if getattr(step, flag, False):
                    yield Problem(step.name, f"{flag} under {private.name}", "a step that sees one record", "drop it")
        if bench.recipe.train.packing != "none":
            where = bench.resolved.where("train.packing")
            yield Problem(where, f"packing under {private.name}", 'train.packing = "none"', 'set packing = "none"')
        if bench.recipe.model.processes > 1:
            where = bench.resolved.where("model.processes")
            yield Problem(where, f"several processes under {private.name}", "one", "set model.processes = 1")


def _data(bench: Workbench, sample: Sample) -> Iterator[Problem]:
    """The first records of each split through the whole chain; those of train fill the sample."""
    source = bench.source
    where = bench.resolved.where("data.files" if isinstance(source, FileSource) else "data.source")
    for split in ("train", "val", "test"):
        records = source.read(split)
        first = [record for _, record in zip(range(SAMPLE_ROWS), records, strict=False)]
        if not first and split != "val":
            yield Problem(where, f"no usable row in {split}", "at least one", "check [data] and data.columns")
        rows = list(map(answer_reading(bench), bench.chain.stream(first)))
        encoded = [bench.renderer.encode(row) for row in rows]
        yield from _too_long(bench, split, rows, encoded)
        if split == "train":
            sample.read, sample.encoded = len(first), encoded
            sample.rows, sample.all_counted = _counted(records, len(first))
        if first and split == "test":
            yield from _constraints(bench, first[0])


def _too_long(bench: Workbench, split: str, rows: list[Example], encoded: list[Encoded]) -> Iterator[Problem]:
    limit = bench.recipe.data.max_tokens
    too_long = [
        f"{row.source or bench.source.name}: row {row.id!r} has {one.length} tokens"
        for row, one in zip(rows, encoded, strict=True)
        if one.length > limit
    ]
    if too_long:
        more = f" (and {len(too_long) - 1} more of the first {len(rows)} of {split})" if len(too_long) > 1 else ""
        place = bench.resolved.where("data.max_tokens")
        expected = f"at most data.max_tokens = {limit}"
        yield Problem(place, too_long[0] + more, expected, "shorten the rows or raise data.max_tokens")


def _counted(records: Iterator[Example], before: int) -> tuple[int, bool]:
    """How many records there are with those `before` these, and whether that is all of them."""
    count, deadline = before, time.monotonic() + COUNT_SECONDS
    for _ in records:
        count += 1
        if time.monotonic() > deadline:
            return count, False
    return count, True


def _time(bench: Workbench, sample: Sample, forecast: dict[str, JSON]) -> Iterator[Problem]:
    """Forecast the training of all records from the sample."""
    if not sample.encoded:
        return
    most = bench.recipe.data.max_rows
    used = min(sample.rows, most) if most else sample.rows
    known = sample.all_counted or used == most
    forecast["rows"] = f"{'' if known else 'more than '}{used:,} to train on, as far as none is set aside"
    model = matrices(Path(bench.base.directory()))
    if model is None:
        forecast["time"] = "not told: the model's safetensors are not on this machine"
        return
    made = used * len(sample.encoded) / sample.read  # a transform may make several rows of one
    told = training(sample.encoded, made, bench.recipe, model, matmul_speed())
    forecast["time"] = str(told) if known else f"{told}; not all rows were counted, so longer"
    yield from ()


def _constraints(bench: Workbench, row: Example) -> Iterator[Problem]:
    """Start every constraint on one real request and ask for its first mask."""
    from r1core.decode.constraints import Request
    from r1core.decode.vocabulary import Vocabulary

    if bench.constraints.constraints:
        request = Request(prompt_of(row), Vocabulary.from_tokenizer(bench.encoder))
        for _, state in bench.constraints.states(request):
            state.mask()
    yield from ()


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
    if facts is not None and not Path(facts).is_file():
        yield Problem(bench.resolved.where("report.demo_facts"), f"{facts}: no such file", "JSON", "mend the path")


def _room(bench: Workbench, forecast: dict[str, JSON]) -> Iterator[Problem]:
    place = bench.directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    forecast["disk"] = f"about {RUN_BYTES / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free at {place}"
    if free < RUN_BYTES:
        yield Problem(str(place), f"{free / 1e9:.2f} GB free", f"{RUN_BYTES / 1e9:.1f} GB", "free some, or use --run")
    model = matrices(Path(bench.base.directory()))
    if model is not None:
        needed = LIBRARY_BYTES + model.parameters * BYTES_PER_PARAMETER * COPIES
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        forecast["memory"] = f"about {needed / 1e9:.1f} GB needed, {memory / 1e9:.1f} GB there"
        if needed > memory:
            yield Problem("memory", f"{memory / 1e9:.1f} GB", f"about {needed / 1e9:.1f} GB", "use a smaller model")


def _layers(bench: Workbench) -> Iterator[Problem]:
    from r1core.testing import check_layers

    model = matrices(Path(bench.base.directory()))
    blocks = len(model.blocks) if model is not None else 0
    for spec in bench.layer_specs(check_layers.base_config()):
        place, _, index = spec.site.partition(":")
        if place == "block" and index.removeprefix("-").isdigit():
            if blocks and not -blocks <= int(index) < blocks:
                yield Problem(spec.name, f"site {spec.site!r}: the model has {blocks} blocks", "one of them", "mend it")
            spec = replace(spec, site="block:0")  # the tiny model that it is tried on has fewer blocks
        for failure in check_layers.layers(spec.name.partition("/")[0], [spec], bench.chain.kinds):
            yield Problem(spec.name, failure, "", "mend the plugin")
