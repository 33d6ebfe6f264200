"""`RunDirectory`: where each artefact of a run lives, the lock on it, and its two append-only logs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from r1core.api import JSON, R1Error, UserError
from r1core.runs.files import ASIDE_PREFIX, disk_full_as_error, json_line, write_jsonl

_MARKS = (".lock", "manifest.json", "recipe.toml", "events.jsonl", "checkpoints")  # every run holds one of them


class JsonLines:
    """An append-only file of JSON objects, one a line, each fsynced.

    A line counts once its newline is on disk: a torn last line, as a killed writer leaves it, is passed over when
    reading and cut off before the next append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checked = False

    def append(self, record: Mapping[str, JSON]) -> None:
        """Add one record.

        Raises
        ------
        DiskFull : when there is no room; the file ends with the last whole record.
        """
        line = json_line(record).encode()
        with disk_full_as_error(self.path, len(line)):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # several commands may answer from one run; closing releases it
                end = os.lseek(descriptor, 0, os.SEEK_END) if self._checked else self._cut_torn_line(descriptor)
                self._checked = False  # until this line is whole
                written = 0
                while written < len(line):
                    written += os.pwrite(descriptor, line[written:], end + written)
                os.fsync(descriptor)
                self._checked = True
            finally:
                os.close(descriptor)

    @staticmethod
    def _cut_torn_line(descriptor: int) -> int:
        content = os.pread(descriptor, os.lseek(descriptor, 0, os.SEEK_END), 0)
        end = content.rfind(b"\n") + 1
        if end != len(content):
            os.ftruncate(descriptor, end)
        return end

    def read(self) -> Iterator[dict[str, JSON]]:
        """Give every whole record; nothing where the file does not exist.

        Raises
        ------
        R1Error : for a broken line before the last one, naming file and line.
        """
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise R1Error(f"{self.path}:{number}: not a line of JSON ({error})") from error
            if not isinstance(record, dict):
                raise R1Error(f"{self.path}:{number}: found {type(record).__name__}, expected a JSON object")
            yield record

    def keep(self, wanted: Callable[[Mapping[str, JSON]], bool]) -> None:
        """Drop, atomically, the records that are not wanted (a resumed run drops the steps that it will redo)."""
        if self.path.exists():
            write_jsonl(self.path, [record for record in self.read() if wanted(record)])
            self._checked = False


class RunDirectory:
    """One run's directory (mode 0700, made on construction): `runs/<name>/`.

    Parameters
    ----------
    path : where it is; parents are made as well.
    create : False to open a run that must exist.

    Raises
    ------
    UserError : where the path is a file or a folder of other things, or does not exist and `create` is False.
    """

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, expected a run directory", fix="name another with --run")
        if not create and not self.path.is_dir():
            raise UserError(f"no run at {self.path}", fix=f"r1core adapt DOMAIN --run {self.path}")
        if create:
            if self.path.is_dir() and any(self.path.iterdir()) and not any((self.path / m).exists() for m in _MARKS):
                raise UserError(
                    f"{self.path} holds other files, expected a run or a new folder", fix="name another with --run"
                )
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        self.events = JsonLines(self.path / "events.jsonl")
        self.metrics = JsonLines(self.path / "metrics.jsonl")
        self.audit = JsonLines(self.path / "audit.jsonl")

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def manifest(self) -> Path:
        """What the run read, chose, reached and wrote."""
        return self.path / "manifest.json"

    @property
    def data(self) -> Path:
        """Prepared splits, quarantine and data card."""
        return self.path / "data"

    def split(self, name: str) -> Path:
        """`data/{train,val,test}.jsonl`."""
        return self.data / f"{name}.jsonl"

    @property
    def quarantine(self) -> Path:
        """Rows that were refused, with line number and reason."""
        return self.data / "quarantine.jsonl"

    @property
    def data_card(self) -> Path:
        """What the data is and where it comes from."""
        return self.data / "card.json"

    @property
    def difficulty(self) -> Path:
        """How difficult each training row is, and its class, where there is a curriculum."""
        return self.data / "difficulty.json"

    @property
    def checkpoints(self) -> Path:
        """Training states, see `r1core.runs.checkpoints`."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter in PEFT's layout."""
        return self.path / "adapter"

    @property
    def layers(self) -> Path:
        """Weights of the extra layers."""
        return self.adapter / "r1core_layers.safetensors"

    @property
    def continual(self) -> Path:
        """What training measured of the earlier runs, where this one continues them."""
        return self.path / "continual"

    @property
    def naive(self) -> Path:
        """Plain sequential tuning, to compare a continued run with: its adapter, metrics and checkpoints."""
        return self.path / "naive"

    @property
    def evaluation(self) -> Path:
        """Everything that evaluation writes."""
        return self.path / "evaluation"

    @property
    def summary(self) -> Path:
        """Evaluation rows `{task, system, metric, value, se, n}`."""
        return self.evaluation / "summary.json"

    @property
    def privacy_card(self) -> Path:
        """What the privacy policy spent."""
        return self.path / "privacy" / "card.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def lock_file(self) -> Path:
        """Holds the pid and command of the writer."""
        return self.path / ".lock"

    def relative(self, path: Path) -> str:
        """An artefact's name in the manifest: its POSIX path inside the run directory."""
        whole = path if path.is_absolute() else self.path / path
        return whole.absolute().relative_to(self.path.absolute()).as_posix()

    def event(self, kind: str, **fields: JSON) -> None:
        """Append `{time, event, ...}` to `events.jsonl`; time is seconds since the epoch."""
        self.events.append({"time": round(time.time(), 3), "event": kind, **fields})

    def clean(self) -> None:
        """Remove what a killed command left unfinished at the top and in the artefact folders."""
        own = (self.path, self.data, self.checkpoints, self.adapter, self.evaluation, self.privacy_card.parent)
        for folder in (*own, self.continual, self.naive):
            for leftover in folder.glob(f"{ASIDE_PREFIX}*"):
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()

    @contextmanager
    def lock(self, command: str = "r1core") -> Iterator[None]:
        """Hold the run for writing; released when the block ends or the process dies, however it dies.

        Raises
        ------
        UserError : when another process holds it, naming its pid and command.
        """
        with disk_full_as_error(self.lock_file):
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip() or "pid unknown"
                raise UserError(
                    f"run {self.path} is being written by another command ({holder})",
                    fix="wait until it ends, or name another run with --run",
                ) from error
            with disk_full_as_error(self.lock_file):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"pid {os.getpid()}: {command}\n".encode(), 0)
            self.clean()
            yield
        finally:
            os.close(descriptor)
