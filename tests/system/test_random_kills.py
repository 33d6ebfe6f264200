"""`kill -9` at random moments of a training, again and again until it is done: 50 of 50 continue to the same bits.

The moments are drawn from a seeded generator over the whole length of an undisturbed command, start included; which
instruction a moment meets differs from run to run. A run that is killed three times has met three moments.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from .conftest import furnish
from .crashes import Crashes, assert_ended_alike, continued_from, lines_of, words

INTERVAL = 5
"""Steps between two checkpoints."""


def saved(run: Path) -> list[int]:
    """Steps of the checkpoints that stand under their names."""
    return [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]


@pytest.mark.slow
@pytest.mark.timeout(900)  # hundreds of commands
@pytest.mark.parametrize(("processes", "moments"), [(1, 50), (2, 15)], ids=["one process", "two processes"])
def test_kill_9_at_random_moments(processes: int, moments: int, tmp_path: Path, tiny: Path, crashes: Crashes) -> None:
    if processes > 1 and sys.platform != "linux":
        pytest.skip("processes are forked on Linux only")
    train = words(
        "train.epochs=8", f"train.checkpoint_every={INTERVAL}", "adapter.dropout=0.1", "train.micro_batch_tokens=64",
        f"model.processes={processes}",
    )  # fmt: skip
    desk = furnish(tmp_path / "desk", tiny)
    run, whole = desk.folder / "runs/own", desk.folder / "whole"
    uncut = crashes(desk, *train)
    assert uncut.code == 0, uncut.err
    shutil.move(run, whole)
    chance = random.Random(processes)
    met, lost, newest = 0, [], 0
    while met < moments or run.exists():
        how = {"seconds": chance.uniform(0.02, uncut.seconds)} if met < moments else {}
        ended = crashes(desk, *train, **how)
        if ended.code == -signal.SIGKILL:
            met += 1
            newest = max(saved(run), default=0)
            lost.append(max((line["step"] for line in lines_of(run)), default=0) - newest)
            continue
        assert ended.code == 0, (met, ended)
        if "train: skipped" not in ended.out:
            assert continued_from(ended.out) == newest
        assert_ended_alike(run, whole)
        shutil.rmtree(run)
        newest = 0
    assert met == len(lost) == moments
    assert min(lost) >= 0
    assert max(lost) <= INTERVAL
    assert any(lost), "some moments met the middle of an interval"
