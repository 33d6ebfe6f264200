"""Running a stage once: skip it when nothing that it depends on changed, otherwise run it and record it whole.

A stage counts as done only after its record is in the manifest. The record is taken out before the stage runs again,
so a crash at any moment in between leaves it not done. One that refuses the user's input
leaves the earlier result as it was.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from r1core.api import JSON, R1Error, UserError
from r1core.runs.directory import RunDirectory
from r1core.runs.files import DiskFull, sha256_file, sha256_tree
from r1core.runs.fingerprint import Fingerprint, diff
from r1core.runs.manifest import Forgotten, Manifest, input_entry


@dataclass(frozen=True, slots=True)
class StageResult:
    """What became of a stage.

    Parameters
    ----------
    status : `done` when it ran, `skip` when its earlier result still holds.
    why : the reasons for running, or the one for skipping, in words.
    figures : what the stage's body returned, now or when it last ran.
    seconds, cpu_seconds : wall time and CPU time (children included) of the run that made the result.
    peak_memory_bytes : largest resident size of this process so far.
    """

    name: str
    status: Literal["done", "skip"]
    why: tuple[str, ...]
    figures: Mapping[str, JSON] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


def run_stage(
    run: RunDirectory,
    name: str,
    fingerprint: Fingerprint,
    outputs: Sequence[Path],
    body: Callable[[], Mapping[str, JSON] | None],
    *,
    inputs: Mapping[str, Path | str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    force: bool = False,
) -> StageResult:
    """Run a stage unless its result still holds. The caller holds the run's lock.

    Parameters
    ----------
    outputs : files or directories in the run that the body writes; each must exist afterwards.
    body : does the work; returns the figures that it reached, or None.
    inputs : named for the manifest (see `Manifest.update`), besides the fingerprint's files.
    tell : receives one line on what happens and why.
    force : run even though nothing changed.

    Raises
    ------
    R1Error : when the body ends without one of its outputs. What the body raises passes, the stage left not done.
    """
    manifest = Manifest(run)
    why = ("asked for",) if force else why_run(run, name, fingerprint)
    if not why:
        record = manifest.read()["stages"][name]
        reason = "nothing that it depends on changed"
        tell(f"{name}: skipped, {reason}")
        run.event("skip", stage=name)
        return _result(name, "skip", (reason,), record)
    tell(f"{name}: {why[0]}" + (f" (and {len(why) - 1} more)" if len(why) > 1 else ""))
    earlier = manifest.forget(name)
    run.event("start", stage=name, why=list(why))
    wall, cpu = time.monotonic(), _cpu_seconds()
    try:
        named = {**(inputs or {}), **fingerprint.files}
        read = {key: input_entry(value) for key, value in named.items()}  # as it is when the stage begins
        figures = dict(body() or {})
        for output in outputs:
            if not (run.path / output).exists():
                raise R1Error(f"stage {name} ended without its output {output}")
    except BaseException as error:
        _failed(run, name, earlier, error)
        raise
    cost = {
        "seconds": round(time.monotonic() - wall, 3),
        "cpu_seconds": round(_cpu_seconds() - cpu, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    record = {"fingerprint": fingerprint.digest, "parts": fingerprint.to_json(), "figures": figures, **cost}
    manifest.update(name, inputs=read, figures=figures, artefacts=outputs, record=record)
    run.event("done", stage=name, **cost)
    return _result(name, "done", why, record)


def _failed(run: RunDirectory, name: str, earlier: Forgotten, error: BaseException) -> None:
    """Note what stopped a stage; where it refused the user's input, what stood of it stands again."""
    try:
        if isinstance(error, UserError):
            Manifest(run).take_back(name, earlier)
        run.event("failed", stage=name, error=f"{type(error).__name__}: {error}")
    except DiskFull as full:  # the log has no room either; what stopped the stage says more
        error.add_note(str(full))


def _result(
    name: str, status: Literal["done", "skip"], why: tuple[str, ...], record: Mapping[str, JSON]
) -> StageResult:
    cost = (record["seconds"], record["cpu_seconds"], record["peak_memory_bytes"])
    return StageResult(name, status, why, record["figures"], *cost)


def why_run(run: RunDirectory, name: str, fingerprint: Fingerprint) -> tuple[str, ...]:
    """Why a stage has to run, in words; () when its result still holds."""
    content = Manifest(run).read()
    record = content["stages"].get(name)
    if record is None:
        return ("not done yet",)
    if record["fingerprint"] != fingerprint.digest:
        return tuple(diff(Fingerprint.from_json(record["parts"]), fingerprint)) or ("its fingerprint changed",)
    reasons = []
    for path, entry in content["artefacts"].items():
        if entry["stage"] == name:
            found = run.path / path
            if not found.is_file():
                reasons.append(f"its output {path} is missing")
            elif sha256_file(found) != entry["sha256"]:
                reasons.append(f"its output {path} was changed")
    return tuple(reasons)


def but_for_code(run: RunDirectory, name: str, now: Fingerprint) -> Fingerprint | None:
    """What a stage's result was made by, where only the code has changed since and the result is whole; else None."""
    record = Manifest(run).read()["stages"].get(name)
    if record is None:
        return None
    then = Fingerprint.from_json(record["parts"])
    like_now = replace(then, source=now.source, plugins=now.plugins)
    same = then.plugins.keys() == now.plugins.keys() and like_now.digest == now.digest
    return then if same and not why_run(run, name, then) else None


def output_hashes(run: RunDirectory, *outputs: Path) -> dict[str, str]:
    """Outputs of an earlier stage as `inputs` of a later one's fingerprint: relative path to content hash."""
    hashes: dict[str, str] = {}
    for output in outputs:
        root = run.path / output
        hashes |= {run.relative(root if name == "." else root / name): h for name, h in sha256_tree(root).items()}
    return hashes


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
