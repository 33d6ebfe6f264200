"""`verify`: does a run still hold exactly what its manifest says?

Rechecks the hash of every artefact and of every input file that is here, looks for files that nobody recorded and for
damaged checkpoints, and compares the plugin lock with what is installed. `trained_adapter` asks the part of this that
whoever is about to read an adapter needs. Not covered: a manifest that was rewritten
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

_UNRECORDED = {"manifest.json", "events.jsonl", "metrics.jsonl", "audit.jsonl", ".lock"}
"""Files that change outside of stages. `metrics.jsonl` is rechecked where a stage names it among its outputs."""
_WRITTEN_BY = {
    "data": ("prepare", "preparation"),
    "adapter": ("train", "training"),
    "privacy": ("train", "training"),
    "continual": ("train", "training"),
    "naive": ("train", "training"),
    "evaluation": ("evaluate", "evaluation"),
    "report.html": ("report", "report"),
    "README.md": ("report", "report"),
}
"""The first part of an output's path to the stage that writes it, and what one pass of that is called."""


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
        *_extras(run, content),
        *_inputs(content["inputs"]),
        *(Finding("checkpoint", run.relative(path), told) for path, told in checkpoints.damaged(run)),
        *_plugins(content["plugins"], installed),
        *_packages(content["packages"]),
    ]


def trained_adapter(directory: Path, otherwise: str = "") -> Path:
    """The folder of a run's adapter and layers, once every file in it is what the train stage recorded.

    Parameters
    ----------
    otherwise : what else the user may do than train again, for the fix.

    Raises
    ------
    UserError : when the run is not trained, its training did not finish, or a file was changed.
    """
    again = "r1core train <the same arguments>"
    if not (directory / "adapter").is_dir():
        raise UserError(f"{directory}: not trained yet", fix=again + otherwise)
    run = RunDirectory(directory, create=False)
    content = Manifest(run).read()
    if "train" not in content["stages"]:
        raise UserError(f"{directory}: {_unfinished('adapter')}", fix=again + otherwise)
    own = {name: entry for name, entry in content["artefacts"].items() if name.startswith("adapter/")}
    added = [finding for finding in _extras(run, content) if finding.path.startswith("adapter/")]
    for finding in _artefacts(run, own) + added:
        fix = f"bring the file back, or {again} (which trains again){otherwise}"
        raise UserError(f"{run.path / finding.path}: {finding.message}", fix=fix)
    return run.adapter


def _unfinished(part: str) -> str:
    stage, called = _WRITTEN_BY[part]
    return f"{stage} did not finish; {part} is of an earlier {called}"


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


def _extras(run: RunDirectory, content: Mapping[str, JSON]) -> list[Finding]:
    """Files that no stage recorded; those of a stage that did not finish are one finding."""
    findings: dict[str, Finding] = {}
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path)
        part, own = name.parts[0], name.as_posix() in _UNRECORDED or name.parts[0] == run.checkpoints.name
        if not path.is_file() or own or name.as_posix() in content["artefacts"]:
            continue
        if path.name.startswith(ASIDE_PREFIX):
            findings[str(name)] = Finding("extra", name.as_posix(), "left behind by a killed command", "note")
        elif part in _WRITTEN_BY and _WRITTEN_BY[part][0] not in content["stages"]:
            told = f"{_unfinished(part)} (fix: run the same command again)"
            findings[part] = Finding("extra", part, told)
        else:
            findings[str(name)] = Finding("extra", name.as_posix(), "no stage recorded it")
    return list(findings.values())


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
