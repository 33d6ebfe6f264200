"""What the run before has measured of a chain already, and whether it still holds.

It holds where the same code, plugins, settings and precision would give the same answers: the evaluation's own record
is compared part by part with what this run would write, its files with their hashes, and the rows with those at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from r1core.api import JSON, Example
from r1core.evaluate.predictions import Prediction, read_predictions
from r1core.model.probe import Compute
from r1core.runs.chain import EarlierRun, files_read
from r1core.runs.files import sha256_file, tree_digest
from r1core.workbench import Workbench

SETTINGS = {
    "model": ("precision", "attention", "template"),
    "train": ("packing",),
    "evaluate": ("batch_size", "max_new_tokens"),
}
"""Keys of the recipe that an answer may depend on, besides the plugins' own sections."""


class Kept(Protocol):
    """The answers of a side (`ours`, `naive`), time and task (from 1) to these rows; None where there are none."""

    def __call__(self, side: str, time: int, task: int, test: Sequence[Example]) -> list[Prediction] | None:
        """Look them up."""
        ...


def file_name(side: str, time: int, task: int) -> str:
    """Where answers of a chain stand in `evaluation/`."""
    return f"over_time-{side}-{time}-{task}.jsonl"


def kept_by(bench: Workbench, compute: Compute, tell: Callable[[str], None]) -> Kept:
    """What the run that is continued has measured; nothing at all where it does not hold, which is told."""
    last = bench.earlier[-1]
    if why := _outdated(bench, last, compute):
        tell(f"  {last.name} is measured again: {why}")

    def kept(side: str, time: int, task: int, test: Sequence[Example]) -> list[Prediction] | None:
        own = {(0, 1): "base.jsonl", (1, 1): "adapted.jsonl"} if len(bench.earlier) == 1 else {}
        path = last.run.evaluation / (own.get((time, task)) or file_name(side, time, task))
        if why or not path.exists():
            return None
        found = read_predictions(path)
        return found if [p.example_id for p in found] == [e.id for e in test] else None

    return kept


def _outdated(bench: Workbench, last: EarlierRun, compute: Compute) -> str:
    """Why the earlier run's evaluation cannot be taken over, in words; "" where it can."""
    content = last.manifest.read()
    record: Mapping[str, JSON] = content["stages"].get("evaluate", {})
    if not record:
        return "it has no finished evaluation"
    for name, entry in content["artefacts"].items():
        path = last.run.path / name
        if entry["stage"] == "evaluate" and not (path.is_file() and sha256_file(path) == entry["sha256"]):
            return f"{name} is not what it wrote"
    parts, now = record["parts"], bench.fingerprint("evaluate", {}, {})
    if parts["source"] != now.source:
        return "it was evaluated by another version of r1core"
    if parts["plugins"] != now.plugins or parts["recipe"]["plugins"] != now.recipe["plugins"]:
        return "its plugins were others"
    for table, keys in SETTINGS.items():
        for key in keys:
            was, own = parts["recipe"][table][key], now.recipe[table][key]
            if was != own:
                return f"{table}.{key} was {was} and is {own}"
    if not any(probe.get("precision") == compute.precision for probe in content["probes"].values()):
        return f"it was not computed in {compute.precision}"
    return _changed(bench, last, parts["inputs"])


def _changed(bench: Workbench, last: EarlierRun, inputs: Mapping[str, str]) -> str:
    for name, digest in inputs.items():
        if name.startswith(("adapter/", "naive/adapter/")) or name == "data/test.jsonl":
            path = last.run.path / name
            if not path.is_file() or sha256_file(path) != digest:
                return f"{name} was changed since"
    for name, path in files_read("evaluate", bench.earlier[:-1], last.recipe.continual).items():
        if inputs.get(name) != tree_digest(path):
            return f"{name.removeprefix('evaluate: ')} was changed since"
    return ""
