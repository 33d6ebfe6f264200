"""What the tests of kills and full disks share: a server that forks `r1core`, and what a run must be afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conftest import NOISE, Desk

EXACT = ("step", "loss", "grad_norm", "learning_rate", "tokens")
"""Keys of a line of `metrics.jsonl` that do not depend on the clock."""


@dataclass(frozen=True)
class Answer:
    """How a child ended; `code` is negative for a signal, `events` are the changes that it was about to make."""

    code: int
    out: str
    err: str
    events: list[tuple[str, str]]
    seconds: float

    def first(self, event: str, path: str, after: int = 0) -> int:
        """Number of the first such event from `after` on whose path has this pattern."""
        found = (n for n, e in enumerate(self.events) if n >= after and e[0] == event and re.search(path, e[1]))
        number = next(found, None)
        assert number is not None, (event, path, self.events)
        return number

    def last(self, event: str, path: str) -> int:
        """Number of the last such event."""
        return max(n for n, e in enumerate(self.events) if e[0] == event and re.search(path, e[1]))


@dataclass
class Crashes:
    """The server of `crash_server.py`."""

    process: subprocess.Popen[str]

    def __call__(self, desk: Desk, *words: str | Path, run: Path | None = None, **how: Any) -> Answer:
        """Run `r1core WORDS` in the desk's folder, killed or short of room as `how` says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        watch = desk.folder / "runs/own" if run is None else run
        asked = {"words": list(map(str, words)), "cwd": str(desk.folder), "watch": str(watch), **how}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        answer = Answer(**{**said, "events": [tuple(event) for event in said["events"]]})
        for word in NOISE:
            assert word not in answer.out + answer.err, answer
        return answer


@contextmanager
def server(environment: dict[str, str]) -> Iterator[Crashes]:
    """The server, ready, until the block ends."""
    command = [sys.executable, str(Path(__file__).with_name("crash_server.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Crashes(process)
        assert process.stdin is not None
        process.stdin.close()


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics, [] where there are none."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def weights_of(run: Path) -> dict[str, bytes]:
    """The files of the adapter by name."""
    return {p.name: p.read_bytes() for p in (run / "adapter").iterdir()}


def assert_ended_alike(run: Path, whole: Path) -> None:
    """Weights and figures to the bit, and nothing left of what was killed."""
    assert weights_of(run) == weights_of(whole)
    ends = [[[line[key] for key in EXACT] for line in lines_of(one)] for one in (run, whole)]
    assert ends[0] == ends[1]
    assert not list(run.rglob(".tmp-*"))


def restored(run: Path, kept: Path) -> None:
    """Put a run directory back to a copy of it."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(kept, run)


def continued_from(said: str) -> int:
    """The step that a command said it continues from, 0 where it began anew."""
    found = re.search(r"continuing from step (\d+) of", said)
    return int(found[1]) if found else 0


def words(*sets: str) -> Sequence[str]:
    """`train` on the desk's recipe with such keys set."""
    return ("train", "--recipe", "own.toml", *(word for one in sets for word in ("--set", one)))
