"""`kill -9` at every place where a training changes its files: the same command then ends on the same bits.

The command runs in a child that counts its own changes to the run directory and kills itself before one of them, or in
the middle of a write. `make test` takes the places that are named here, `make test-all` every one.
"""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1core.runs.directory import RunDirectory
from r1core.runs.verify import verify

from .conftest import Desk, furnish
from .crashes import Answer, Crashes, assert_ended_alike, continued_from, lines_of, restored, weights_of, words

STEPS = 4
TRAIN = words(f"train.steps={STEPS}", "train.checkpoint_every=1")
POINTS = {
    "before the aside directory of a save": ("os.mkdir", r"^checkpoints/\.tmp-step-000003"),
    "before the first file of a save": ("open", r"tmp-step-000003.*/state\.json"),
    "before the hashes of a save": ("open", r"tmp-step-000003.*/hashes\.json"),
    "before the rename of a save": ("os.rename", r"^checkpoints/step-000003"),
    "before an old checkpoint is taken out": ("os.rename", r"^checkpoints/\.tmp-gone"),
    "inside an old checkpoint's removal": ("os.rmdir", r"^checkpoints/\.tmp-gone"),
    "between the last checkpoint and the adapter": ("os.mkdir", r"^\.tmp-adapter"),
    "inside the adapter": ("open", r"^\.tmp-adapter.*/adapter_config\.json"),
    "before the rename of the adapter": ("os.rename", r"^adapter$"),
}
"""Where a first training is killed, by the first such event."""
TORN = {
    "in the middle of a save's tensors": r"tmp-step-000003.*/optimizer\.safetensors",
    "in the middle of a save's hashes": r"tmp-step-000003.*/hashes\.json",
    "in the middle of a step's figures": r"^metrics\.jsonl",
    "in the middle of the run's log": r"^events\.jsonl",
}


@dataclass(frozen=True)
class Scene:
    """A desk whose run is as `begin` before the command, and as `whole` after it.

    `uncut` is that command, undisturbed; `fresh` where the run's figures are those of this very training.
    """

    desk: Desk
    begin: Path
    whole: Path
    uncut: Answer
    fresh: bool

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.desk.folder / "runs/own"


def scene(desk: Desk, crashes: Crashes, *, fresh: bool = True) -> Scene:
    """The run as it is now, and what the training makes of it."""
    begin, whole = desk.folder / "begin", desk.folder / "whole"
    shutil.copytree(desk.folder / "runs/own", begin)
    uncut = crashes(desk, *TRAIN)
    assert uncut.code == 0, uncut.err
    shutil.copytree(desk.folder / "runs/own", whole)
    return Scene(desk, begin, whole, uncut, fresh)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny: Path, crashes: Crashes) -> Scene:
    """A first training, on prepared records."""
    desk = furnish(tmp_path_factory.mktemp("first") / "desk", tiny)
    assert crashes(desk, "prepare", "--recipe", "own.toml").code == 0
    return scene(desk, crashes)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, tiny: Path, crashes: Crashes) -> Scene:
    """A training that takes the place of an earlier one with another recipe."""
    desk = furnish(tmp_path_factory.mktemp("again") / "desk", tiny)
    assert crashes(desk, *words("train.steps=2", "train.learning_rate=0.01", "train.checkpoint_every=1")).code == 0
    return scene(desk, crashes, fresh=False)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, tiny: Path, crashes: Crashes) -> Scene:
    """A stopped training whose newest checkpoint has been damaged: it is saved anew under another name."""
    desk = furnish(tmp_path_factory.mktemp("damaged") / "desk", tiny)
    assert crashes(desk, "prepare", "--recipe", "own.toml").code == 0
    shutil.copytree(desk.folder / "runs", desk.folder / "prepared")
    uncut = crashes(desk, *TRAIN)
    restored(desk.folder / "runs", desk.folder / "prepared")
    killed = crashes(desk, *TRAIN, event=uncut.first("open", r"^metrics", uncut.first("os.rename", "^c.*step-000003")))
    assert killed.code == -signal.SIGKILL
    with (desk.folder / "runs/own/checkpoints/step-000003/adapter.safetensors").open("r+b") as file:
        file.truncate(1000)
    return scene(desk, crashes)


def killed_and_continued(scene: Scene, crashes: Crashes, **how: int) -> None:
    """Kill the command there, type it again, and compare."""
    restored(scene.run, scene.begin)
    killed = crashes(scene.desk, *TRAIN, **how)
    assert killed.code == -signal.SIGKILL, (how, killed)
    if (scene.run / "adapter").exists():
        assert weights_of(scene.run) in [weights_of(r) for r in (scene.begin, scene.whole) if (r / "adapter").exists()]
    known = len(lines_of(scene.run))
    done = crashes(scene.desk, *TRAIN)
    assert done.code == 0, (how, done.err)
    if scene.fresh and "train: skipped" not in done.out:
        assert known - continued_from(done.out) <= 1, (how, "more than one save interval was lost")
    assert_ended_alike(scene.run, scene.whole)
    assert [one for one in verify(RunDirectory(scene.run)) if one.severity != "note"] == []


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_a_kill_before_a_change_costs_no_bit(point: tuple[str, str], first: Scene, crashes: Crashes) -> None:
    killed_and_continued(first, crashes, event=first.uncut.first(*point))


@pytest.mark.parametrize("file", TORN.values(), ids=TORN)
def test_a_kill_in_the_middle_of_a_write_costs_no_bit(file: str, first: Scene, crashes: Crashes) -> None:
    killed_and_continued(first, crashes, torn=first.uncut.last("open", file))


def test_a_kill_before_the_manifest_knows_of_the_stage_costs_no_bit(first: Scene, crashes: Crashes) -> None:
    renamed = first.uncut.first("os.rename", r"^adapter$")
    killed_and_continued(first, crashes, event=first.uncut.first("os.rename", r"^manifest\.json", renamed))


def test_a_kill_inside_the_last_removal_leaves_nothing_behind(first: Scene, crashes: Crashes) -> None:
    killed_and_continued(first, crashes, event=first.uncut.last("os.rmdir", r"^checkpoints/\.tmp-gone"))


def test_a_kill_between_the_two_renames_of_a_replaced_adapter_costs_no_bit(again: Scene, crashes: Crashes) -> None:
    killed_and_continued(again, crashes, event=again.uncut.first("os.rename", r"^adapter$"))


def test_a_kill_before_a_replaced_checkpoint_goes_costs_no_bit(damaged: Scene, crashes: Crashes) -> None:
    renamed = damaged.uncut.first("os.rename", r"^checkpoints/step-000003\.1$")
    killed_and_continued(damaged, crashes, event=damaged.uncut.first("os.rename", r"tmp-gone", renamed))


@pytest.mark.slow
@pytest.mark.timeout(900)  # hundreds of commands
@pytest.mark.parametrize("name", ["first", "again", "damaged"])
def test_a_kill_before_any_change_costs_no_bit(name: str, request: pytest.FixtureRequest, crashes: Crashes) -> None:
    found: Scene = request.getfixturevalue(name)
    for number in range(len(found.uncut.events)):
        killed_and_continued(found, crashes, event=number)


@pytest.mark.slow
@pytest.mark.timeout(900)  # hundreds of commands
def test_a_kill_in_the_middle_of_any_write_costs_no_bit(first: Scene, crashes: Crashes) -> None:
    aside = re.compile(r"\.tmp-adapter|\.lock")  # PEFT's own files, and a note for people
    for number, (event, path) in enumerate(first.uncut.events):
        if event == "open" and not aside.search(path):
            killed_and_continued(first, crashes, torn=number)
