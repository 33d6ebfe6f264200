"""Checkpoints that outlive a kill at any moment and a full disk: written aside, fsynced, hashed, renamed.

Tensors are stored with safetensors and everything else as JSON, no pickle. `checkpoints/` is local to the machine and
is hash-checked before it is read. Where weights are cut over processes, each writes a file of its own into the same
checkpoint, which counts once all have. Not covered: two writers at once (hold the run's lock).
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from r1core.api import JSON, R1Error
from r1core.runs.crew import ALONE, Crew
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
_FILE = re.compile(r"(?P<group>[a-z][a-z0-9_]*)(?:-(?P<part>\d{5})-of-(?P<parts>\d{5}))?\.safetensors")
_HASHES = "hashes.json"
_STATE = "state.json"


Found = TypeVar("Found")


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over because it is damaged."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint on disk whose hashes held when it was opened.

    Parameters
    ----------
    hashes : SHA-256 of each file, by name.
    fingerprint : digest of the training that wrote it ("" where none was given).
    cut : `group/name` of each tensor of which every part holds a slice, along the first axis.
    """

    step: int
    path: Path
    hashes: Mapping[str, str]
    fingerprint: str = ""
    cut: frozenset[str] = frozenset()

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the tensor groups that it holds."""
        found = (_FILE.fullmatch(name) for name in self.hashes)
        return tuple(sorted({named["group"] for named in found if named}))

    @property
    def parts(self) -> int:
        """How many processes wrote it."""
        found = (_FILE.fullmatch(name) for name in self.hashes)
        return max((int(named["parts"] or 1) for named in found if named), default=1)

    def tensors(self, group: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
        """One group's tensors, on the CPU: those of the process of this rank where as many wrote it, else whole.

        Raises
        ------
        R1Error : when there is no such group, or its file no longer has its hash.
        """
        if group not in self.groups:
            raise R1Error(f"{self.path} holds no tensors {group!r}, found {', '.join(self.groups) or 'none'}")
        from safetensors.torch import load
        from torch import cat

        if world == self.parts:
            return load(self._read(_file(group, rank, world)))
        held = [load(self._read(_file(group, part, self.parts))) for part in range(self.parts)]
        return {
            name: cat([one[name] for one in held]) if f"{group}/{name}" in self.cut else value
            for name, value in held[0].items()
        }

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
    crew: Crew = ALONE,
    cut: Collection[str] = (),
) -> Checkpoint:
    """Write `checkpoints/step-000120` as a whole or not at all.

    One that is there already at this step is replaced: the new one arrives as `step-000120.1` before the old one goes.

    Parameters
    ----------
    tensors : group (`model`, `optimizer`, `rng`, …: one file each) to name to tensor; device and strides do not matter.
    state : everything else, JSON without NaN (floats come back bit for bit).
    fingerprint : digest of the training stage; `latest_valid` can ask for it.
    crew : the processes that save together, each its own slices; every one has to call this.
    cut : `group/name` of the tensors that are slices.

    Raises
    ------
    DiskFull : when there is no room; earlier checkpoints are intact.
    R1Error : when another process of the crew could not write.
    ValueError : for a negative step, a group's name that is no identifier, or a state that JSON has no form for.
    """
    if step < 0 or not all(_GROUP.fullmatch(group) for group in tensors):
        raise ValueError(f"step {step} is negative, or a group of {list(tensors)} is no lower-case identifier")
    first = crew.rank == 0
    made = _together(crew, lambda: _begun(run, step) if first else None)[0]
    assert made is not None
    target, aside = (run.checkpoints / name for name in made)
    try:
        each = _together(crew, lambda: _written(aside, target, tensors, state if first else None, crew))
        hashes = {name: digest for one in each for name, digest in one.items()}
        if first:
            head = {"step": step, "fingerprint": fingerprint, "files": hashes, "cut": sorted(cut)}
            write_synced(aside / _HASHES, canonical_json(head).encode(), named=target / _HASHES)
            sync_directory(aside)
            aside.rename(target)
    except BaseException:
        if first:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    if first:
        sync_directory(run.checkpoints)
        for path in _newest_first(run):
            if _order(path)[0] == step and path != target:
                _remove(path)
    crew.exchange(None)  # nobody goes on before it is there
    return Checkpoint(step, target, hashes, fingerprint, frozenset(cut))


def _begun(run: RunDirectory, step: int) -> tuple[str, str]:
    """Names of the checkpoint to be and of the directory aside, which is made."""
    same_step = [path for path in _newest_first(run) if _order(path)[0] == step]
    revision = f".{_order(same_step[0])[1] + 1}" if same_step else ""
    target = run.checkpoints / f"step-{step:06d}{revision}"
    with disk_full_as_error(target):
        run.checkpoints.mkdir(mode=0o700, exist_ok=True)
    clean(run)
    aside = aside_path(target)
    with disk_full_as_error(target):
        aside.mkdir(mode=0o700)
    return target.name, aside.name


def _written(
    aside: Path,
    target: Path,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, JSON] | None,
    crew: Crew,
) -> dict[str, str]:
    """Write one process's files; return the hash of each."""
    from safetensors.torch import save as to_bytes

    hashes: dict[str, str] = {}

    def put(name: str, data: bytes) -> None:
        write_synced(aside / name, data, named=target / name)
        hashes[name] = sha256_bytes(data)

    if state is not None:
        put(_STATE, canonical_json(dict(state)).encode())
    for group, named in tensors.items():
        put(_file(group, crew.rank, crew.world), to_bytes(_detached(named)))
    return hashes


def _together(crew: Crew, work: Callable[[], Found]) -> list[Found]:
    """Every process's result; where one fails, all raise.

    Raises
    ------
    R1Error : when another process failed, naming it.
    """
    try:
        done, error = work(), None
    except Exception as raised:
        done, error = None, raised
    found = crew.exchange((done, error and str(error)))
    if error is not None:
        raise error
    for rank, (_, said) in enumerate(found):
        if said is not None:
            raise R1Error(f"process {rank}: {said}")
    return [result for result, _ in found]


def _file(group: str, rank: int, world: int) -> str:
    """A group's file, or one process's part of it."""
    return f"{group}-{rank + 1:05d}-of-{world:05d}.safetensors" if world > 1 else f"{group}.safetensors"


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
        cut = frozenset(map(str, head.get("cut", ())))
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
    return Checkpoint(step, path, hashes, fingerprint, cut)


def _remove(path: Path) -> None:
    """Take a checkpoint out by one rename, so that a kill never leaves half of it under its name."""
    gone = path.with_name(f"{ASIDE_PREFIX}gone-{uuid.uuid4().hex}")
    path.rename(gone)
    shutil.rmtree(gone)


def _detached(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Own, contiguous CPU copies: safetensors refuses tensors that share memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}
