"""`manifest.json`: what a run read, ran on, chose, reached and wrote.

One atomic file that the stages update as they finish. It binds artefacts to inputs by SHA-256; it is not signed, so
it proves nothing against somebody who rewrites it too: keep `digest()` elsewhere (a ticket, a register) for that.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import r1core
from r1core.api import JSON, R1Error, UserError
from r1core.runs.directory import RunDirectory
from r1core.runs.files import sha256_file, sha256_tree, tree_digest, write_json

LAYOUT = 1
"""Version of the manifest's layout."""


_PARTS = ("device", "packages", "plugins", "recipe", "probes", "inputs", "stages", "figures", "artefacts")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a manifest held of a stage: its record, None where it was not done, and its artefacts."""

    record: dict[str, JSON] | None
    artefacts: dict[str, dict[str, JSON]]


class Manifest:
    """Reads and updates one run's manifest; every change is on disk, whole, when the call returns.

    The caller holds the run's lock. Keys: `layout, r1core, created, updated, seed, device, packages, plugins, recipe,
    inputs {name: {path, sha256, bytes, stage}}, probes {name: choice}, stages {name: {...}}, figures {name: number},
    artefacts {relative path: {sha256, bytes, stage}}`. `device` is the machine of the stage that ran last, and each of
    `stages` names its own; a command that only looked leaves them as they are.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def read(self) -> dict[str, JSON]:
        """The manifest's content; an empty skeleton where none is written yet.

        Raises
        ------
        UserError : when the file is not a manifest.
        """
        path = self.run.manifest
        if not path.exists():
            head = {"layout": LAYOUT, "r1core": r1core.__version__, "created": _now(), "updated": "", "seed": None}
            return head | {key: [] if key == "plugins" else {} for key in _PARTS}
        fix = "bring the file back from a copy, or start a run of its own with --run"
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error}); the run cannot be verified or continued", fix) from error
        if not isinstance(content, dict) or "layout" not in content:
            raise UserError(f"{path}: no manifest of r1core; the run cannot be verified or continued", fix)
        if content["layout"] != LAYOUT:
            raise UserError(f"{path}: layout {content['layout']}, expected {LAYOUT}: another version wrote it", fix)
        if broken := _misshapen(content):
            said = f"{path}: `{broken}` is not as r1core writes it; the run cannot be verified or continued"
            raise UserError(said, fix)
        return content

    def digest(self) -> str:
        """SHA-256 of the manifest file."""
        return sha256_file(self.run.manifest)

    def start(self, *, recipe: Mapping[str, JSON], seed: int, plugins: Sequence[Mapping[str, JSON]]) -> None:
        """Note what a command is about to run with; keeps stages, probes, inputs and artefacts of earlier commands."""
        self._change(recipe=dict(recipe), seed=seed, plugins=[dict(entry) for entry in plugins])
        if self.run.recipe.exists():
            self.update("recipe", artefacts=[self.run.recipe])

    def update(
        self,
        stage: str,
        *,
        inputs: Mapping[str, Path | str | Mapping[str, JSON]] | None = None,
        figures: Mapping[str, JSON] | None = None,
        artefacts: Sequence[Path] = (),
        record: Mapping[str, JSON] | None = None,
    ) -> None:
        """Note what a stage read, reached and wrote.

        Parameters
        ----------
        inputs : name to the path of a file or directory (hashed here), to a ready hash where there is no path, or to
            an entry made earlier; what this stage read when it ran before is forgotten.
        figures : figures reached, added to those of earlier stages; names are free.
        artefacts : files or directories inside the run; all of this stage's earlier artefacts are forgotten.
        record : what `stages[stage]` shall say (see `r1core.runs.stages`).
        """
        content = self.read()
        if inputs is not None:
            kept = {name: entry for name, entry in content["inputs"].items() if entry.get("stage") != stage}
            content["inputs"] = kept | {name: {**input_entry(value), "stage": stage} for name, value in inputs.items()}
        content["figures"].update(figures or {})
        if record is not None:
            content["device"] = device()
            content["stages"][stage] = {**record, "device": content["device"]}
        if artefacts:
            kept = {path: entry for path, entry in content["artefacts"].items() if entry["stage"] != stage}
            written = {path: entry for item in artefacts for path, entry in self._hashed(item, stage).items()}
            content["artefacts"] = dict(sorted((kept | written).items()))
        self._write(content)

    def forget(self, stage: str) -> Forgotten:
        """Note that a stage is not done (it is about to run again); what stood of it."""
        content = self.read()
        record = content["stages"].pop(stage, None)
        gone = {path: entry for path, entry in content["artefacts"].items() if entry["stage"] == stage}
        content["artefacts"] = {path: entry for path, entry in content["artefacts"].items() if path not in gone}
        self._write(content)
        return Forgotten(record, gone)

    def take_back(self, stage: str, earlier: Forgotten) -> None:
        """Note what stood of a stage again, where every file of it is as it was."""
        whole = (self.run.path / path for path in earlier.artefacts)
        same = all(
            path.is_file() and sha256_file(path) == entry["sha256"]
            for path, entry in zip(whole, earlier.artefacts.values(), strict=True)
        )
        if earlier.record is None or not same:
            return
        content = self.read()
        content["stages"][stage] = earlier.record
        content["artefacts"] = dict(sorted((content["artefacts"] | earlier.artefacts).items()))
        self._write(content)

    def probe(self, name: str, choose: Callable[[], JSON]) -> JSON:
        """The kept choice of a probe; `choose` runs, once per run directory, where there is none."""
        content = self.read()
        if name not in content["probes"]:
            choice = choose()
            content = self.read()
            content["probes"][name] = choice
            self._write(content)
        return content["probes"][name]

    def _hashed(self, artefact: Path, stage: str) -> dict[str, JSON]:
        root = artefact if artefact.is_absolute() else self.run.path / artefact
        names = {self.run.relative(root if name == "." else root / name): h for name, h in sha256_tree(root).items()}
        return {
            name: {"sha256": digest, "bytes": (self.run.path / name).stat().st_size, "stage": stage}
            for name, digest in names.items()
        }

    def _change(self, **values: JSON) -> None:
        self._write(self.read() | values)

    def _write(self, content: dict[str, JSON]) -> None:
        content["updated"] = _now()
        content["r1core"] = r1core.__version__
        content["device"] = content["device"] or device()
        content["packages"] = dict(sorted((content["packages"] | packages()).items()))
        write_json(self.run.manifest, content)


def input_entry(value: Path | str | Mapping[str, JSON]) -> dict[str, JSON]:
    """`{path, sha256, bytes}` of an input; a string is a ready hash and has no path, an entry is returned as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):
        return {"path": None, "sha256": value, "bytes": None}
    files = [value] if value.is_file() else [path for path in value.rglob("*") if path.is_file()]
    if not files:
        raise R1Error(f"{value}: no such input file, or an empty directory")
    size = sum(path.stat().st_size for path in files)
    return {"path": str(value.absolute()), "sha256": tree_digest(value), "bytes": size}


def _misshapen(content: Mapping[str, JSON]) -> str | None:
    """The first key whose value has another shape than the layout's, or None."""
    for part in _PARTS:
        if not isinstance(content.get(part), list if part == "plugins" else dict):
            return part
    for part, needed in (("inputs", {"path", "sha256"}), ("artefacts", {"sha256"}), ("stages", set())):
        for name, entry in content[part].items():
            if not isinstance(entry, dict) or not needed <= entry.keys():
                return f"{part}.{name}"
    return None


def device() -> dict[str, JSON]:
    """The machine: CPU model, usable cores, memory in bytes, system, Python; accelerators where torch is loaded."""
    found: dict[str, JSON] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


@functools.cache
def _cpu_model() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named.group(1) if named else platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Version of every distribution that this process has imported something of, and of r1core itself."""
    imported = {name.partition(".")[0] for name in sys.modules}
    owners = _owners()
    names = {owner for module in imported & owners.keys() for owner in owners[module]}
    return {"r1core": r1core.__version__} | {name: metadata.version(name) for name in names if name != "r1core"}


@functools.cache
def _owners() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
