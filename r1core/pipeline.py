"""The stages of a run in order, each skipped while nothing that it depends on has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from r1core.api import JSON, UserError
from r1core.data.prepare import SPLITS, prepare
from r1core.evaluate.baselines import refuse_untunable
from r1core.recipe.problems import refuse, render
from r1core.recipe.write import to_toml
from r1core.runs import checkpoints
from r1core.runs.files import sha256_file, write_atomic
from r1core.runs.fingerprint import Fingerprint, diff, own_fingerprints
from r1core.runs.manifest import Manifest
from r1core.runs.stages import StageResult, but_for_code, output_hashes, run_stage, why_run
from r1core.workbench import Workbench

if TYPE_CHECKING:
    from r1core.model.probe import Compute
    from r1core.train.launched import Crew

STAGES = ("prepare", "train", "evaluate", "report")
BY_ROUNDS = "trained_by_rounds"
"""Figure of a train stage that `r1core.learner` finished."""


class Console(Protocol):
    """Where a run speaks: lines, and progress of long work."""

    def line(self, text: str) -> None:
        """Print one line."""
        ...

    def progress(self, what: str, done: int, total: int, detail: Mapping[str, float] | None = None) -> None:
        """Show how far long work is, with rate and time left."""
        ...


def begin(bench: Workbench) -> None:
    """Write the resolved recipe and what the command runs with; the caller holds the run's lock."""
    recipe = to_toml(bench.recipe).encode()
    if not bench.run.recipe.exists() or bench.run.recipe.read_bytes() != recipe:
        write_atomic(bench.run.recipe, recipe)
    Manifest(bench.run).start(
        recipe=bench.recipe.model_dump(mode="json"), seed=bench.recipe.run.seed, plugins=bench.plugins.lock()
    )


def run_to(bench: Workbench, last: str, console: Console, *, force: bool = False) -> list[StageResult]:
    """Run every stage up to `last`; with `force`, that one even if nothing changed.

    Raises
    ------
    InvalidInput : with every problem that can be told before the tokenizer is loaded; nothing was written.
    """
    if os.environ.get("WORLD_SIZE", "") in ("", "1"):
        return _run_to(bench, last, console, force)
    from r1core.train.launched import Crew

    bench.crew = crew = Crew()
    if crew.rank:
        _follow(bench, crew)
    with crew.leading():
        return _run_to(bench, last, console, force)


def _run_to(bench: Workbench, last: str, console: Console, force: bool) -> list[StageResult]:
    from r1core.check import before

    found = before(bench)
    refuse(found)
    for warning in render(found):
        console.line(warning)
    results = []
    with bench.run.lock(last), _recipe_back_on_refusal(bench):
        begin(bench)
        for name in STAGES[: STAGES.index(last) + 1]:
            bench.tell(name, "start")
            try:
                result = _RUNNERS[name](bench, console, force and name == last)
            except BaseException:
                bench.tell(name, "failed")
                raise
            bench.tell(name, "skip" if result.status == "skip" else "done")
            results.append(result)
            if name == "prepare" and last in ("evaluate", "report"):
                _refuse_unmeasurable(bench)
    return results


@contextmanager
def _recipe_back_on_refusal(bench: Workbench) -> Iterator[None]:
    """Where a stage refuses the user's input, the run states the recipe again that its artefacts were made by."""
    recipe, manifest = bench.run.recipe, Manifest(bench.run)
    before, stated = recipe.read_bytes() if recipe.exists() else None, manifest.read()
    try:
        yield
    except UserError:
        if before is not None:
            write_atomic(recipe, before)
            manifest.start(recipe=stated["recipe"], seed=stated["seed"], plugins=stated["plugins"])
        raise


def refuse_untrained(bench: Workbench) -> None:
    """Refuse a run that was not trained as its recipe says; that code has changed since is no reason.

    Raises
    ------
    UserError : with the reason.
    """
    now = train_fingerprint(bench)
    why = why_run(bench.run, "train", now)
    if why and but_for_code(bench.run, "train", now) is None:
        raise UserError(f"{bench.directory}: not trained as its recipe says: {why[0]}", fix="r1core train, then again")


def _refuse_unmeasurable(bench: Workbench) -> None:
    """Stop before the training whose evaluation could not be made."""
    if bench.has_labels and bench.recipe.evaluate.baselines:
        splits = json.loads(bench.run.data_card.read_bytes())["splits"]
        for name, task in bench.tasks.items():
            train, val = (splits[s].get("tasks", {}).get(name, splits[s]) for s in ("train", "val"))
            if task.choices:
                refuse_untunable(train["labels"], val["rows"], "" if len(bench.tasks) == 1 else name)


def _follow(bench: Workbench, crew: Crew) -> NoReturn:
    """Join the trainings that the first process says, until it has ended; then end like it, without a word."""
    from r1core.model.probe import Compute
    from r1core.train.naive import train_and_compare

    while "end" not in (said := crew.hear()):
        own = train_fingerprint(bench)
        if own.digest != said["digest"]:
            why = "; ".join(diff(Fingerprint.from_json(said["parts"]), own))
            raise UserError(
                f"process {crew.rank} does not work on the same as the first one: {why}",
                fix="start the same command, with the same packages and one run directory, on every machine",
            )
        with crew.following():
            train_and_compare(bench, Compute(**said["compute"]), own.digest, lambda *step: None, lambda line: None)
            crew.leave()
    raise SystemExit(said["end"])


def _prepare(bench: Workbench, console: Console, force: bool) -> StageResult:
    components = own_fingerprints([*bench.chain.steps, *bench.gates.values(), *bench.augments])
    fingerprint = bench.fingerprint("prepare", {"data": bench.source.fingerprint()}, components)
    outputs = [bench.run.split(s) for s in SPLITS] + [bench.run.quarantine, bench.run.data_card]
    return run_stage(
        bench.run,
        "prepare",
        fingerprint,
        outputs,
        lambda: prepare(bench, console.line),
        inputs={"data": bench.source.fingerprint(), "model": bench.base.fingerprint},
        tell=console.line,
        force=force,
    )


def train_fingerprint(bench: Workbench) -> Fingerprint:
    """What the train stage of this run depends on."""
    components = own_fingerprints([*bench.chain.steps, bench.privacy, bench.difficulty])
    return bench.fingerprint("train", output_hashes(bench.run, bench.run.split("train")), components)


def _kept(bench: Workbench, now: Fingerprint, console: Console) -> Fingerprint:
    """By what an adapter counts as trained that is not to be trained again unasked: one that privacy was spent on, and
    one that rounds with others made, which this run's own rows cannot make again.

    Raises
    ------
    UserError : where rounds made it, and more than code has changed since.
    """
    why = why_run(bench.run, "train", now)
    record = Manifest(bench.run).read()["stages"].get("train", {})
    rounds = bool(record.get("figures", {}).get(BY_ROUNDS))
    if not why or not (rounds or bench.privacy is not None):
        return now
    then = but_for_code(bench.run, "train", now)
    if then is not None:
        console.line("train: kept, though its code changed; --force trains again")
        return then
    if rounds:
        raise UserError(
            f"{bench.directory}: rounds with others made its adapter, and since then: {why[0]}",
            fix="take the rounds again in a run of its own; --force trains on this recipe's own rows instead",
        )
    return now


def _train(bench: Workbench, console: Console, force: bool) -> StageResult:
    fingerprint = train_fingerprint(bench)

    def body() -> dict[str, JSON]:
        from r1core.train.naive import train_and_compare

        compute = compute_of(bench)
        if force:  # else the newest checkpoint, of the last step, would be all
            checkpoints.clear(bench.run)
        parts = fingerprint.to_json()
        bench.crew.say({"digest": fingerprint.digest, "parts": parts, "compute": compute.as_json()})

        def progress(step: int, total: int, metrics: Mapping[str, float]) -> None:
            console.progress("train", step, total, metrics)

        figures = train_and_compare(bench, compute, fingerprint.digest, progress, console.line)
        bench.crew.leave()
        return figures

    outputs = [bench.run.adapter, bench.run.metrics.path]
    if not force:
        fingerprint = _kept(bench, fingerprint, console)
    if bench.privacy is not None:
        outputs.append(bench.run.privacy_card.parent)
    if bench.recipe.curriculum.difficulty:
        outputs.append(bench.run.difficulty)
    outputs += bench.compared + [bench.run.continual] * bool(bench.earlier and bench.recipe.continual.ewc)
    return run_stage(bench.run, "train", fingerprint, outputs, body, tell=console.line, force=force)


def _evaluate(bench: Workbench, console: Console, force: bool) -> StageResult:
    run = bench.run
    inputs = output_hashes(run, run.adapter, *bench.compared[:1], *(run.split(s) for s in SPLITS))
    demo = bench.recipe.report.demo_facts
    if demo is not None and Path(demo).is_file():
        inputs["demo_facts"] = sha256_file(Path(demo))
    components = own_fingerprints([*bench.chain.steps, *bench.constraints.constraints, *bench.metrics])
    fingerprint = bench.fingerprint("evaluate", inputs, components)

    def body() -> dict[str, JSON]:
        from r1core.evaluate.stage import evaluate

        return evaluate(bench, compute_of(bench), console.progress, console.line)

    return run_stage(run, "evaluate", fingerprint, [run.evaluation], body, tell=console.line, force=force)


def _report(bench: Workbench, console: Console, force: bool) -> StageResult:
    run = bench.run
    told = [run.privacy_card] if bench.privacy is not None else []
    inputs = output_hashes(run, run.evaluation, run.metrics.path, run.split("test"), run.data_card, *told)
    fingerprint = bench.fingerprint("report", inputs, {})

    def body() -> dict[str, JSON]:
        from r1core.runs.report.gather import write_report

        write_report(bench)
        return {}

    outputs = [run.report, run.model_card]
    return run_stage(run, "report", fingerprint, outputs, body, tell=console.line, force=force)


def compute_of(bench: Workbench) -> Compute:
    """The probed compute choice, kept in the manifest so that a rerun computes alike."""
    from r1core.model.probe import Compute, choose

    model = bench.recipe.model
    asked = f"compute {model.precision} {model.threads} {model.processes}"
    kept = Manifest(bench.run).probe(asked, lambda: choose(model).as_json())
    return Compute(**kept)


_RUNNERS: dict[str, Callable[[Workbench, Console, bool], StageResult]] = {
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
}
