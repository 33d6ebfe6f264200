"""A disk that fills up during a save: one clear line, the checkpoint before it valid, and the same command continues.

The kernel itself refuses the write: a limit on the size of a file (EFBIG), or a small file system without room
(ENOSPC). Nothing is simulated. The limit is set just before a save begins, in the child that saves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1core.runs.checkpoints import latest_valid
from r1core.runs.directory import RunDirectory

from .conftest import Desk, furnish
from .crashes import Answer, Crashes, assert_ended_alike, continued_from, restored, words

TRAIN = words("train.steps=4", "train.checkpoint_every=1")
SAVE = ("os.mkdir", r"^checkpoints/\.tmp-step-000003")
"""The save that meets the full disk."""
LIMITS = (0, 1, 20, 40, 200, 512, 4096, 10_000, 20_000, 35_000, 50_000, 69_023, 69_024, 69_025, 80_000, 100_000,
          120_000, 130_000, 137_000, 137_263)  # fmt: skip
"""Bytes that a file may have: inside a save's state, its adapter and its optimiser, and at their ends."""
FAST = (20, 10_000, 69_024, 137_263)
ROOM = tuple(range(0, 200_000, 10_000))
"""Bytes left on the small file system; a save needs 206,700."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny: Path, crashes: Crashes) -> Desk:
    """A desk with a prepared run in `begin` and a trained one in `whole`."""
    made = furnish(tmp_path_factory.mktemp("full") / "desk", tiny)
    assert crashes(made, "prepare", "--recipe", "own.toml").code == 0
    shutil.copytree(made.folder / "runs/own", made.folder / "begin")
    assert crashes(made, *TRAIN).code == 0
    shutil.copytree(made.folder / "runs/own", made.folder / "whole")
    return made


@pytest.fixture(scope="module")
def uncut(desk: Desk, crashes: Crashes) -> Answer:
    """The training, undisturbed, from the prepared run on."""
    run = desk.folder / "runs/own"
    restored(run, desk.folder / "begin")
    return crashes(desk, *TRAIN)


def refused_and_continued(desk: Desk, crashes: Crashes, run: Path, again: Iterator[None], **how: int) -> None:
    """Train into the full disk, look at what is left, make room (one step of `again`), and train on."""
    restored(run, desk.folder / "begin")
    where = ("--run", str(run))
    full = crashes(desk, *TRAIN, *where, run=run, **how)
    assert full.code == 1, (how, full)
    [line] = full.err.splitlines()
    assert line.startswith("error: no room to write"), (how, line)
    assert "checkpoints/step-000003" in line, (how, line)
    assert "free some space and run the same command again" in line
    found = latest_valid(RunDirectory(run))
    assert found is not None
    assert found.step == 2
    assert not (run / "adapter").exists()
    next(again)
    done = crashes(desk, *TRAIN, *where, run=run)
    assert done.code == 0, (how, done.err)
    assert continued_from(done.out) == 2
    assert_ended_alike(run, desk.folder / "whole")


def room_anyhow() -> Iterator[None]:
    """The limit ended with the process that it was set for."""
    while True:
        yield


@pytest.mark.parametrize("limit", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in LIMITS])
def test_a_file_that_may_not_grow(limit: int, desk: Desk, uncut: Answer, crashes: Crashes) -> None:
    run = desk.folder / "runs/own"
    refused_and_continued(desk, crashes, run, room_anyhow(), full=uncut.first(*SAVE), bytes=limit)


@pytest.mark.slow
@pytest.mark.timeout(900)  # hundreds of commands
def test_a_file_system_without_room(desk: Desk, uncut: Answer, small_disk: Path, crashes: Crashes) -> None:
    def freed() -> Iterator[None]:
        for _ in ROOM:
            (small_disk / "ballast").unlink()
            yield

    again = freed()
    for room in ROOM:
        refused_and_continued(desk, crashes, small_disk / "run", again, ballast=uncut.first(*SAVE), bytes=room)


def full_from(number: int, desk: Desk, crashes: Crashes) -> None:
    """Let no file grow from one change on, and train on with room."""
    run = desk.folder / "runs/own"
    restored(run, desk.folder / "begin")
    full = crashes(desk, *TRAIN, full=number, bytes=0)
    if full.code:  # behind the last write there is nothing to refuse
        assert full.code == 1, (number, full)
        [line] = full.err.splitlines()
        assert line.startswith("error: no room to write"), (number, line)
    assert crashes(desk, *TRAIN).code == 0
    assert_ended_alike(run, desk.folder / "whole")


def test_a_disk_that_is_full_from_the_start(desk: Desk, crashes: Crashes) -> None:
    full_from(0, desk, crashes)


@pytest.mark.slow
@pytest.mark.timeout(900)  # hundreds of commands
def test_a_disk_that_is_full_from_any_change_on(desk: Desk, uncut: Answer, crashes: Crashes) -> None:
    for number in range(1, len(uncut.events)):
        full_from(number, desk, crashes)
