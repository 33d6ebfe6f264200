"""Ctrl-C, `kill -9` and a full disk, at real moments of a real training: what the same command then ends with."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from pathlib import Path

import pytest

from .conftest import WARD, Desk, Done, furnish

ARTEFACTS = ("adapter/adapter_model.safetensors", "adapter/r1core_layers.safetensors")


def weights_of(desk: Desk, run: str = "runs/own") -> list[bytes]:
    return [(desk.folder / run / name).read_bytes() for name in ARTEFACTS]


def steps_of(desk: Desk, run: str = "runs/own") -> list[int]:
    return [json.loads(line)["step"] for line in (desk.folder / run / "metrics.jsonl").read_text().splitlines()]


def losses_of(desk: Desk) -> list[float]:
    return [json.loads(line)["loss"] for line in (desk.folder / "runs/own/metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_the_same_command_ends_with_the_same_bits(
    sign: signal.Signals, adapted: tuple[Desk, Done], tmp_path: Path, tiny: Path
) -> None:
    whole, _ = adapted
    desk = furnish(tmp_path / "desk", tiny)
    desk.path = whole.path
    stopped = desk.stopped(sign, "runs/own", 13, "train", *WARD)
    if sign == signal.SIGINT:
        assert stopped.code == 130
        assert stopped.err.strip() == "interrupted: the same command continues from the last stage or checkpoint"
    else:
        assert stopped.code == -signal.SIGKILL
    assert not (desk.folder / "runs/own/adapter").exists(), "it was stopped in the middle"
    done = desk("train", *WARD)
    assert "prepare: skipped" in done.out
    assert re.search(r"continuing from step [1-8]\d of 96", done.out)
    assert weights_of(desk) == weights_of(whole)
    assert steps_of(desk) == steps_of(whole)
    assert losses_of(desk) == losses_of(whole)
    assert not list((desk.folder / "runs/own").rglob(".tmp-*"))


@pytest.mark.slow
def test_a_stop_while_preparing_leaves_nothing_half_done(desk: Desk) -> None:
    child = desk.start("prepare", "--recipe", "own.toml")
    assert child.stdout is not None
    assert child.stdout.readline() == "prepare: not done yet\n"
    child.kill()
    child.communicate(timeout=60)
    assert "prepare: not done yet" in desk("prepare", "--recipe", "own.toml").out
    desk("verify", "runs/own")


def limited() -> None:
    """No file of the child may grow beyond this: as a full disk, at the first checkpoint's optimiser state."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.slow
def test_no_room_for_a_checkpoint_is_one_line_and_the_same_command_continues(
    adapted: tuple[Desk, Done], tmp_path: Path, tiny: Path
) -> None:
    whole, _ = adapted
    desk = furnish(tmp_path / "desk", tiny)
    desk.path = whole.path
    full = desk("train", *WARD, code=1, preexec_fn=limited)
    [line] = full.err.splitlines()
    assert line.startswith("error: no room to write")
    assert "checkpoints/step-000005" in line
    assert "run the same command again" in line
    desk("train", *WARD)
    assert weights_of(desk) == weights_of(whole)


@pytest.mark.slow
def test_a_disk_that_fills_up_after_a_checkpoint_keeps_that_checkpoint(
    adapted: tuple[Desk, Done], small_disk: Path, tmp_path: Path, tiny: Path
) -> None:
    whole, _ = adapted
    desk = furnish(tmp_path / "desk", tiny)
    desk.path = whole.path
    where = ("--run", small_disk / "run")
    stopped = desk.stopped(signal.SIGINT, str(small_disk / "run"), 7, "train", *WARD, *where)
    assert stopped.code == 130
    before = {p.name: p.stat().st_mtime_ns for p in (small_disk / "run/checkpoints").iterdir()}
    free = os.statvfs(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 100_000))
    full = desk("train", *WARD, *where, code=1)
    assert full.err.startswith("error: no room to write")
    assert len(full.err.splitlines()) == 1
    assert {p.name: p.stat().st_mtime_ns for p in (small_disk / "run/checkpoints").iterdir()} == before
    ballast.unlink()
    assert "continuing from step" in desk("train", *WARD, *where).out
    assert weights_of(desk, str(small_disk / "run")) == weights_of(whole)


def test_two_commands_on_one_run_do_not_meet(adapted: tuple[Desk, Done], tmp_path: Path, tiny: Path) -> None:
    import fcntl

    whole, _ = adapted
    with (whole.folder / "runs/own/.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = whole("report", *WARD, code=2)
    assert "is being written by another command" in done.err
    assert "fix: wait until it ends" in done.err


def test_a_weight_that_is_infinite_stops_within_the_first_step(desk: Desk) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = desk.folder / "tiny/model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name] = tensors[name].fill_(torch.inf)
    save_file(tensors, path, metadata={"format": "pt"})
    done = desk("train", "--recipe", "own.toml", "--set", 'train.packing="none"', code=1)
    assert len(done.err.splitlines()) == 1
    assert "step 1: loss nan" in done.err
    assert "nothing of this step is saved" in done.err
    assert not (desk.folder / "runs/own/checkpoints").exists()
    assert not (desk.folder / "runs/own/adapter").exists()


@pytest.mark.slow
def test_a_learning_rate_that_explodes_stops_with_the_last_good_checkpoint(desk: Desk) -> None:
    explode = ("--set", "train.learning_rate=1e30", "--set", "train.checkpoint_every=1")
    done = desk("train", "--recipe", "own.toml", *explode, code=1)
    assert "step 2: loss nan" in done.err or "step 2: loss inf" in done.err
    assert [p.name for p in (desk.folder / "runs/own/checkpoints").iterdir()] == ["step-000001"]
    assert steps_of(desk) == [1]
