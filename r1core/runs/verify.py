"""`verify`: does a run still hold exactly what its manifest says?

Rechecks the hash of every artefact and of every input file that is here, looks for files that nobody recorded and for
damaged checkpoints, and compares the plugin lock with what is installed. Not covered: a manifest that was rewritten
together with the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from r1core.api import JSON, UserError
from r1core.runs import checkpoints
from r1core.runs.directory import RunDirectory
from r1core.runs.files import ASIDE_PREFIX, sha256_file, tree_digest
from r1core.runs.manifest import Manifest

_UNRECORDED = {"manifest.json", "events.jsonl", "metrics.jsonl", ".lock"}
"""Files that change outside of stages. `metrics.jsonl` is rechecked where a stage names it among its outputs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a run differs from its manifest.

    Parameters
    ----------
    kind : what differs.
    path : the file, input or plugin.
    message : found and expected, on one line.
    severity : a `note` could not be rechecked here and does not make the run fail.
    """

    kind: Literal["missing", "changed", "extra", "input", "plugin", "package", "checkpoint"]
    path: str
    message: str
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.kind}: {self.path}: {self.message}"


def verify(run: RunDirectory, *, installed: Sequence[Mapping[str, JSON]] | None = None) -> list[Finding]:
    """Recheck everything that the manifest states; an empty list means that all of it holds.

    Parameters
    ----------
    installed : the plugin lock as it would be written now, to compare sources as well; by default only the versions
        of the installed distributions are compared, and nothing is imported.

    Raises
    ------
    UserError : when the run has no manifest.
    """
    if not run.manifest.exists():
        raise UserError(f"{run.path} has no manifest.json: nothing was run there", fix="name a run directory")
    content = Manifest(run).read()
    return [
        *_artefacts(run, content["artefacts"]),
        *_extras(run, content["artefacts"]),
        *_inputs(content["inputs"]),
        *(Finding("checkpoint", "checkpoints", line) for line in checkpoints.damaged(run)),
        *_plugins(content["plugins"], installed),
        *_packages(content["packages"]),
    ]


def _artefacts(run: RunDirectory, recorded: Mapping[str, Mapping[str, JSON]]) -> list[Finding]:
    findings = []
    for name, entry in recorded.items():
        path = run.path / name
        if not path.is_file():
            findings.append(Finding("missing", name, f"written by stage {entry['stage']}, not there any more"))
        elif (found := sha256_file(path)) != entry["sha256"]:
            size = f"{path.stat().st_size:,} bytes for {entry['bytes']:,}"
            findings.append(Finding("changed", name, f"found {found[:12]}…, recorded {entry['sha256'][:12]}… ({size})"))
    return findings


def _extras(run: RunDirectory, recorded: Mapping[str, JSON]) -> list[Finding]:
    findings = []
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path)
        own = name.as_posix() in _UNRECORDED or name.parts[0] == run.checkpoints.name
        if path.is_file() and not own and name.as_posix() not in recorded:
            left = path.name.startswith(ASIDE_PREFIX)
            message = "left behind by a killed command" if left else "no stage recorded it"
            findings.append(Finding("extra", name.as_posix(), message, "note" if left else "error"))
    return findings


def _inputs(recorded: Mapping[str, Mapping[str, JSON]]) -> list[Finding]:
    findings = []
    for name, entry in recorded.items():
        if entry["path"] is None:
            continue
        path = Path(entry["path"])
        try:
            if not path.exists():
                findings.append(Finding("input", name, f"{path} is not here, so it was not rechecked", "note"))
                continue
            found = tree_digest(path)
        except OSError as error:
            findings.append(Finding("input", name, f"{path}: {error.strerror}, so it was not rechecked", "note"))
            continue
        if found != entry["sha256"]:
            told = f"found {found[:12]}…, recorded {entry['sha256'][:12]}…"
            findings.append(Finding("input", name, f"{path} is not what the run read ({told})"))
    return findings


def _plugins(lock: Sequence[Mapping[str, JSON]], installed: Sequence[Mapping[str, JSON]] | None) -> list[Finding]:
    now = {entry["name"]: entry for entry in installed or ()}
    findings = []
    for entry in lock:
        name, distribution = str(entry["name"]), str(entry.get("distribution") or "")
        version = now[name].get("version") if name in now else _version(distribution)
        if name not in now and (not distribution or distribution.startswith("(")):
            findings.append(Finding("plugin", name, "comes from a file, so it was not rechecked", "note"))
        elif version is None:
            findings.append(Finding("plugin", name, f"{distribution} {entry['version']} is not installed any more"))
        elif version != entry["version"]:
            findings.append(Finding("plugin", name, f"installed is {version}, the run used {entry['version']}"))
        elif name in now and now[name].get("source_sha256") != entry.get("source_sha256"):
            findings.append(Finding("plugin", name, f"same version {version}, but its source is not what the run used"))
    return findings


def _packages(recorded: Mapping[str, str]) -> list[Finding]:
    findings = []
    for name, version in recorded.items():
        found = _version(name)
        if found is not None and found != version:
            findings.append(Finding("package", name, f"installed is {found}, the run used {version}", "note"))
    return findings


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution) if distribution else None
    except metadata.PackageNotFoundError:
        return None
