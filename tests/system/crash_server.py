"""Runs `r1core` in forked children of a process that has imported everything, and kills them where it is told.

A script, driven by lines of JSON on standard input; nothing of it is known to the product. A child counts what it is
about to do to the files of one folder (Python's audit events: open for writing, mkdir, rename, remove, rmdir,
truncate), so that it can be killed just before any of them; or a timer of the parent kills it; or its disk fills up.

Each request: `words`, `cwd`, `watch` (the folder whose events count), and one or none of
`event` (kill before this event, from 0), `torn` (kill in the middle of the write to the file this event opens),
`seconds` (kill after that long), `full` (from this event on no file may exceed `bytes`), `ballast` (from this event on
a file of ballast leaves `bytes` of the folder's file system free).
Each answer: `code` (negative: the signal), `out`, `err`, `events` [name, path], `seconds`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1core.testing.typist import heard

WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


@dataclass
class Watch:
    """Counts one child's changes to a folder, and does at one of them what was asked for."""

    asked: dict[str, Any]
    log: int
    count: int = 0
    torn: bool = False
    busy: bool = False
    process: int = field(default_factory=os.getpid)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook; ranks forked later are not counted."""
        if self.busy or os.getpid() != self.process:
            return
        path = self._changed(event, arguments)
        if path is None:
            return
        self.busy = True
        os.write(self.log, (json.dumps([event, path]) + "\n").encode())
        self._act(self.count)
        self.count += 1
        self.busy = False

    def _changed(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """The path inside the folder that is about to change, relative to it."""
        if event == "open":
            if not isinstance(arguments[0], str | bytes | os.PathLike) or not (arguments[2] or 0) & WRITING:
                return None
        elif event not in CHANGES:
            return None
        place = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(place, str | bytes | os.PathLike):
            return None
        beside = arguments[1] if event in ("os.remove", "os.rmdir") else -1  # shutil.rmtree names files beside it
        folder = Path(f"/proc/self/fd/{beside}").readlink() if beside != -1 else Path.cwd()
        path = os.path.normpath(folder / os.fsdecode(place))
        inside = os.path.relpath(path, self.asked["watch"])
        return None if inside.startswith("..") else inside

    def _act(self, number: int) -> None:
        asked = self.asked
        if number == asked.get("event"):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == asked.get("torn"):
            tear_the_next_write()
        if number == asked.get("full"):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["bytes"], resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        if number == asked.get("ballast"):
            fill(Path(asked["watch"]), asked["bytes"])


def fill(folder: Path, left: int) -> None:
    """Leave so many bytes of a small file system free."""
    free = os.statvfs(folder)
    (folder.parent / "ballast").write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - left))


def tear_the_next_write() -> None:
    """Let the next bytes that are written through a file object or `os.pwrite` be half of them, and the last."""
    fdopen, pwrite = os.fdopen, os.pwrite

    def torn_pwrite(descriptor: int, data: bytes, place: int) -> int:
        pwrite(descriptor, data[: len(data) // 2], place)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    class Torn:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *raised: object) -> None:
            self.stream.close()

        def write(self, data: memoryview) -> int:
            self.stream.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    os.pwrite = torn_pwrite  # type: ignore[assignment]
    os.fdopen = lambda *given, **named: Torn(fdopen(*given, **named))  # type: ignore[assignment]


def child(asked: dict[str, Any], out: int, err: int, log: int) -> None:
    """Become the command line; does not return."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(asked["cwd"])
    sys.addaudithook(Watch(asked, log).hear)
    from r1core.cli.main import main

    code: object = 70
    try:
        main(asked["words"])
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 70)


def served(asked: dict[str, Any]) -> dict[str, Any]:
    """Run one request until its child and whatever that started have ended."""
    started = time.monotonic()
    pipes = {name: os.pipe() for name in ("out", "err", "log")}  # not files: a child's files may be limited
    number = os.fork()
    if number == 0:
        child(asked, *(writing for _, writing in pipes.values()))
    for _, writing in pipes.values():
        os.close(writing)
    said = heard({reading: name for name, (reading, _) in pipes.items()}, number, asked.get("seconds", 120.0))
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    events = [json.loads(line) for line in said.pop("log").splitlines()]
    return {"code": code, "events": events, "seconds": time.monotonic() - started, **said}


def main() -> None:
    """Import what the train stage needs, once, and serve until standard input ends."""
    for name in ("cli.main", "cli.train", "cli.prepare", "pipeline", "train.stage", "runs.manifest"):
        importlib.import_module(f"r1core.{name}")
    sys.modules["r1core.runs.manifest"].packages()  # reads every installed distribution's files, and keeps what it read
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(served(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
