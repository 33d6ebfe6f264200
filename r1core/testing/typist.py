"""Types `r1core` commands as a user does, without the seconds that every one of them imports for: tests of commands.

One process imports what commands need and forks a child for each command: a process of its own, with its folder,
environment, standard input, streams and exit code. Not the same as a terminal: modules are there already (so what an
import costs, says or finds changed is not seen), and library settings that are read from the environment while
importing are those of the first command; `fits` says whether a command may be typed so. Linux and macOS only.

    done = typist()("check", "--recipe", "my.toml", cwd=folder, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

IMPORTED = (
    "r1core.cli.main", "r1core.cli.adapt", "r1core.cli.check", "r1core.cli.generate", "r1core.cli.report",
    "r1core.cli.verify", "r1core.pipeline", "r1core.train.stage", "r1core.evaluate.stage", "r1core.decode.generate",
    "r1core.runs.manifest", "transformers.models.llama.modeling_llama", "peft",
)  # fmt: skip
AT_IMPORT = frozenset(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE",
     "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONWARNINGS")
)  # fmt: skip
"""Variables that are read when the interpreter starts or a library is imported."""
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # as the command line sets them
LONGEST = 200.0  # seconds that a command may take
_BEFORE = frozenset(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))


class Typist:
    """A process that types commands, one at a time; it ends with the process that started it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._settings = _settings(env)
        command = [sys.executable, "-m", "r1core.testing.typist"]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**env, **QUIET})
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n", "the process that types commands did not start"

    def close(self) -> None:
        """End the process."""
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        self._server.wait()

    def fits(self, env: Mapping[str, str]) -> bool:
        """Whether a command in this environment would find the libraries set up as it expects."""
        return _settings(env) == self._settings

    def __call__(
        self, *words: str | Path, cwd: Path, env: Mapping[str, str], given: str = "", timeout: float = LONGEST
    ) -> subprocess.CompletedProcess[str]:
        """Type `r1core WORDS` in a folder, and return how it ended as `subprocess.run` does.

        Parameters
        ----------
        given : standard input. timeout : seconds after which the command is killed; its code is then -9.
        """
        asked = {"words": [*map(str, words)], "cwd": str(cwd), "env": dict(env), "given": given, "timeout": timeout}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code, out, err = json.loads(self._server.stdout.readline())
        return subprocess.CompletedProcess(["r1core", *map(str, words)], code, out, err)


def _settings(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name in AT_IMPORT}


@functools.cache
def typist() -> Typist:
    """The typist of this process, started when first asked for; its commands compute with one thread."""
    made = Typist({**os.environ, "OMP_NUM_THREADS": "1"})
    atexit.register(made.close)
    return made


def _become(asked: Mapping[str, object], streams: Mapping[int, int]) -> None:
    """Be the command, in a child; does not return."""
    for number, opened in streams.items():
        os.dup2(opened, number)
    os.chdir(str(asked["cwd"]))
    env = asked["env"]
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    before = [str(Path.cwd()), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*before, *(place for place in sys.path[1:] if place not in _BEFORE)]
    importlib.invalidate_caches()
    code: object = 1
    try:
        words = asked["words"]
        assert isinstance(words, list)
        sys.argv = ["r1core", *words]
        sys.modules["r1core.cli.main"].main(words)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _typed(asked: Mapping[str, object]) -> tuple[int, str, str]:
    """Run one command until it and whatever holds its streams have ended; its exit code and both streams."""
    pipes = {name: os.pipe() for name in ("out", "err")}
    with tempfile.TemporaryFile() as given:
        given.write(str(asked["given"]).encode())
        given.seek(0)
        child = os.fork()
        if child == 0:
            _become(asked, {0: given.fileno(), 1: pipes["out"][1], 2: pipes["err"][1]})
    for _, writing in pipes.values():
        os.close(writing)
    said = heard({reading: name for name, (reading, _) in pipes.items()}, child, float(str(asked["timeout"])))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, said["out"], said["err"]


def heard(streams: dict[int, str], child: int, seconds: float) -> dict[str, str]:
    """What comes through pipes, by name, until their writers are gone; the child is killed when its time is over.

    Parameters
    ----------
    streams : reading end to name; the ends are closed here.
    """
    said, ends, killed = dict.fromkeys(streams.values(), b""), time.monotonic() + seconds, False
    while streams:
        left = ends - time.monotonic()
        if left <= 0 and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        for reading in select.select(list(streams), [], [], None if killed else max(left, 0.0))[0]:
            data = os.read(reading, 1 << 16)
            said[streams[reading]] += data
            if not data:
                os.close(reading)
                del streams[reading]
    return {name: data.decode() for name, data in said.items()}


def _serve() -> None:
    """Import, and type commands until standard input ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    sys.modules["r1core.runs.manifest"].packages()  # reads every installed distribution's files, and keeps what it read
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_typed(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
