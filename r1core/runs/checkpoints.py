"""Checkpoints that outlive a kill at any moment and a full disk: written aside, fsynced, hashed, renamed.

Tensors are stored with safetensors and everything else as JSON, no pickle. `checkpoints/` is local to the machine and
is hash-checked before it is read. Not covered: two writers at once (hold the run's lock).
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import JSON, R1Error
from r1core.runs.directory import RunDirectory
from r1core.runs.files import (
    ASIDE_PREFIX,
    aside_path,
    canonical_json,
    disk_full_as_error,
    sha256_bytes,
    sha256_file,
    sync_directory,
    write_synced,
)

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"step-(?P<step>\d{6,})(?:\.(?P<revision>\d+))?")
_GROUP = re.compile(r"[a-z][a-z0-9_]*")
_HASHES = "hashes.json"
_STATE = "state.json"


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over because it is damaged."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint on disk whose hashes held when it was opened.

    Parameters
    ----------
    hashes : SHA-256 of each file, by name.
    fingerprint : digest of the training that wrote it ("" where none was given).
    """

    step: int
    path: Path
    hashes: Mapping[str, str]
    fingerprint: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the tensor groups that it holds."""
        return tuple(sorted(name.removesuffix(".safetensors") for name in self.hashes if name != _STATE))

    def tensors(self, group: str) -> dict[str, torch.Tensor]:
        """One group's tensors, on the CPU.

        Raises
        ------
        R1Error : when there is no such group, or its file no longer has its hash.
        """
        if group not in self.groups:
            raise R1Error(f"{self.path} holds no tensors {group!r}, found {', '.join(self.groups) or 'none'}")
        from safetensors.torch import load

        return load(self._read(f"{group}.safetensors"))

    def state(self) -> dict[str, JSON]:
        """The JSON state that was saved with it."""
        content: dict[str, JSON] = json.loads(self._read(_STATE))
        return content

    def _read(self, name: str) -> bytes:
        data = (self.path / name).read_bytes()
        if sha256_bytes(data) != self.hashes[name]:
            raise R1Error(f"{self.path / name} was changed after it was saved; remove {self.path} to fall back")
        return data


def save(
    run: RunDirectory,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, JSON],
    *,
    fingerprint: str = "",
) -> Checkpoint:
    """Write `checkpoints/step-000120` as a whole or not at all.

    One that is there already at this step is replaced: the new one arrives as `step-000120.1` before the old one goes.

    Parameters
    ----------
    tensors : group (`model`, `optimizer`, `rng`, …: one file each) to name to tensor; device and strides do not matter.
    state : everything else, JSON without NaN (floats come back bit for bit).
    fingerprint : digest of the training stage; `latest_valid` can ask for it.

    Raises
    ------
    DiskFull : when there is no room; earlier checkpoints are intact.
    ValueError : for a negative step, a group's name that is no identifier, or a state that JSON has no form for.
    """
    if step < 0 or not all(_GROUP.fullmatch(group) for group in tensors):
        raise ValueError(f"step {step} is negative, or a group of {list(tensors)} is no lower-case identifier")
    from safetensors.torch import save as to_bytes

    same_step = [path for path in _newest_first(run) if _order(path)[0] == step]
    revision = f".{_order(same_step[0])[1] + 1}" if same_step else ""
    target = run.checkpoints / f"step-{step:06d}{revision}"
    with disk_full_as_error(target):
        run.checkpoints.mkdir(mode=0o700, exist_ok=True)
    clean(run)
    aside = aside_path(target)
    hashes: dict[str, str] = {}

    def put(name: str, data: bytes) -> None:
        write_synced(aside / name, data, named=target / name)
        hashes[name] = sha256_bytes(data)

    try:
        with disk_full_as_error(target):
            aside.mkdir(mode=0o700)
        put(_STATE, canonical_json(dict(state)).encode())
        for group, named in tensors.items():
            put(f"{group}.safetensors", to_bytes(_detached(named)))
        head = {"step": step, "fingerprint": fingerprint, "files": hashes}
        write_synced(aside / _HASHES, canonical_json(head).encode(), named=target / _HASHES)
        sync_directory(aside)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_directory(run.checkpoints)
    for replaced in same_step:
        _remove(replaced)
    return Checkpoint(step, target, hashes, fingerprint)


def latest_valid(run: RunDirectory, *, fingerprint: str | None = None) -> Checkpoint | None:
    """The newest checkpoint whose every hash holds, or None.

    A damaged one is passed over with a `CheckpointWarning`. With a `fingerprint`, checkpoints of another training are
    passed over in silence: they belong to what was trained before.
    """
    for path in _newest_first(run):
        try:
            found = _open(path)
        except R1Error as error:
            warnings.warn(f"{error}; falling back to the one before", CheckpointWarning, stacklevel=2)
            continue
        if fingerprint is None or found.fingerprint == fingerprint:
            return found
    return None


def prune(run: RunDirectory, *, keep: int = 2) -> list[int]:
    """Remove all but the newest `keep` (at least 1) valid checkpoints; return the steps removed.

    Damaged ones do not count as kept, so the last valid one always stays.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}, expected at least 1")
    valid, removed = 0, []
    for path in _newest_first(run):
        if valid == keep:
            _remove(path)
            removed.append(_order(path)[0])
            continue
        try:
            _open(path)
            valid += 1
        except R1Error:
            continue
    clean(run)
    return removed


def clear(run: RunDirectory) -> None:
    """Remove every checkpoint (training starts over)."""
    for path in _newest_first(run):
        _remove(path)
    clean(run)


def clean(run: RunDirectory) -> None:
    """Remove what killed writers left unfinished."""
    for leftover in run.checkpoints.glob(f"{ASIDE_PREFIX}*"):
        shutil.rmtree(leftover)


def damaged(run: RunDirectory) -> Iterator[tuple[Path, str]]:
    """Each damaged checkpoint, and what is wrong with it on one line."""
    for path in _newest_first(run):
        try:
            _open(path)
        except R1Error as error:
            yield path, str(error).removeprefix(f"checkpoint {path} is ")


def _newest_first(run: RunDirectory) -> list[Path]:
    if not run.checkpoints.is_dir():
        return []
    named = [path for path in run.checkpoints.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(named, key=_order, reverse=True)


def _order(path: Path) -> tuple[int, int]:
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path} is not named like a checkpoint")
    return int(named["step"]), int(named["revision"] or 0)


def _open(path: Path) -> Checkpoint:
    try:
        head = json.loads((path / _HASHES).read_bytes())
        hashes: dict[str, str] = dict(head["files"])
        step, fingerprint = int(head["step"]), str(head["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise R1Error(f"checkpoint {path} is damaged: no readable {_HASHES}") from error
    if step != _order(path)[0] or _STATE not in hashes:
        raise R1Error(f"checkpoint {path} is damaged: its {_HASHES} belongs to another checkpoint")
    for name, expected in hashes.items():
        file = path / name
        if not file.is_file():
            raise R1Error(f"checkpoint {path} is damaged: {name} is missing")
        if sha256_file(file) != expected:
            raise R1Error(f"checkpoint {path} is damaged: {name} does not have its hash")
    return Checkpoint(step, path, hashes, fingerprint)


def _remove(path: Path) -> None:
    """Take a checkpoint out by one rename, so that a kill never leaves half of it under its name."""
    gone = path.with_name(f"{ASIDE_PREFIX}gone-{uuid.uuid4().hex}")
    path.rename(gone)
    shutil.rmtree(gone)


def _detached(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Own, contiguous CPU copies: safetensors refuses tensors that share memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}
