"""A file of JSON lines, each of which holds the hash of the one before: appended to, never changed.

A line counts once it is on the disk: `append` returns after fsync, or, where the caller has something to do meanwhile,
`settle` does. What a crash left of a line that was not finished is cut off when the file is opened; nothing had come of
its step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from r1core.api import UserError

FIRST = "0" * 64  # what the first line holds in the place of a hash
Line = Mapping[str, Any]


def read_lines(path: Path) -> tuple[list[Line], list[str]]:
    """The lines of a chain, without an unfinished one, and the hash of each.

    Raises
    ------
    UserError : for a line that was changed, left out or put in.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", fix="check its permissions") from error
    lines: list[Line] = []
    hashes: list[str] = []
    for number, raw in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = json.loads(raw)
            before = line["before"]
        except (ValueError, KeyError, TypeError):
            before = None
        if before != (hashes[-1] if hashes else FIRST):
            raise UserError(
                f"{path}:{number}: the line does not follow the one before it: the ledger was changed",
                fix="restore the ledger from a copy; nothing is trained on a ledger that does not hold together",
            )
        lines.append(line)
        hashes.append(hashlib.sha256(raw).hexdigest())
    return lines, hashes


class Chain:
    """A chain that this process alone may write to, until it is closed.

    Raises
    ------
    UserError : when another process holds it, it cannot be written, or it does not hold together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._syncing: Future[None] | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror})", fix="set plugins.dp.ledger to a folder that can"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise UserError(f"{path}: another training draws on this ledger", fix="wait for it, or end it") from error
        try:
            found, self.hashes = read_lines(path)
            self.lines: list[Line] = found
            self._cut_unfinished()
        except BaseException:
            os.close(self._file)
            raise

    def _cut_unfinished(self) -> None:
        whole = self.path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        _sync_folder(self.path.parent)  # that the file itself is there

    @property
    def head(self) -> str:
        """The hash of the last line."""
        return self.hashes[-1] if self.hashes else FIRST

    def append(self, line: Line, *, later: bool = False) -> None:
        """Add a line. It is on the disk when this returns, or, `later`, when `settle` does."""
        self.settle()
        raw = json.dumps({**line, "before": self.head}, sort_keys=True, separators=(",", ":")).encode()
        _write_all(self._file, raw + b"\n")
        if later:
            self._syncing = self._thread.submit(os.fsync, self._file)
        else:
            os.fsync(self._file)
        self.lines.append(line)
        self.hashes.append(hashlib.sha256(raw).hexdigest())

    def settle(self) -> None:
        """Wait until every line is on the disk.

        Raises
        ------
        OSError : where the disk does not take it; nothing may come of what the line stands for.
        """
        if self._syncing is not None:
            self._syncing.result()
            self._syncing = None

    def close(self) -> None:
        """Let others write."""
        self._thread.shutdown()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def holds(hashes: Sequence[str], head: str) -> bool:
    """Whether a chain goes on from this head: it was neither put back nor written anew."""
    return head == FIRST or head in hashes
