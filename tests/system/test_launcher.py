"""`torchrun -m r1core`: two processes of one run, each with all weights or with slices of them."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from .conftest import Desk

FSDP2 = ("--set", "train.parallel=fsdp2")
LONG = ("train", "--recipe", "own.toml", "--set", "train.epochs=6", "--set", "curriculum.difficulty=column",
        "--set", "curriculum.column=Days", "--set", "adapter.dropout=0.1")  # fmt: skip


class Launched(Desk):
    """A desk at which `r1core` is typed behind `torchrun`."""

    world = 2

    def command(self, *words: str | Path) -> list[str]:  # type: ignore[override]
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={self.world}"]
        meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
        return [*launcher, *meeting, "-m", "--", "r1core", *map(str, words)]

    def env(self) -> dict[str, str]:
        return {**super().env(), "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}


def adapter(desk: Desk, run: str = "own") -> dict[str, torch.Tensor]:
    return load_file(desk.folder / "runs" / run / "adapter/adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[n], other[n], atol=atol, rtol=0) for n in one)


def with_days(desk: Desk) -> None:
    """A column to go by: how many days each complaint has lasted."""
    lines = (desk.folder / "notes.csv").read_text().splitlines()
    days = [re.search(r"day (\d+)", line) for line in lines]
    named = [f"{line},{found[1] if found else 'Days'}" for line, found in zip(lines, days, strict=True)]
    desk.write("notes.csv", "\n".join(named) + "\n")


@pytest.fixture
def launched(desk: Desk) -> Launched:
    with_days(desk)
    return Launched(desk.folder)


@pytest.mark.slow
def test_two_processes_adapt_as_one_does_and_speak_once(launched: Launched) -> None:
    done = launched("adapt", "--recipe", "own.toml", code=None)
    assert done.code == 0, done.said
    assert done.out.count("prepare: not done yet") == 1
    assert done.out.count("evaluate: not done yet") == 1
    Desk(launched.folder)("train", "--recipe", "own.toml", "--run", "runs/alone")
    assert same(adapter(launched), adapter(launched, "alone"), atol=1e-5)
    assert "nothing that it depends on changed" in Desk(launched.folder)("train", "runs/own").out


@pytest.mark.slow
def test_a_cut_run_survives_the_death_of_a_process_on_the_same_bits(launched: Launched, tmp_path: Path) -> None:
    whole = Launched(launched.folder)
    assert whole(*LONG, *FSDP2, "--run", "runs/whole", code=None).code == 0
    child = launched.start(*LONG, *FSDP2)
    metrics, ends = launched.folder / "runs/own/metrics.jsonl", time.monotonic() + 150
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 13:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < ends
    psutil.Process(child.pid).children()[1].send_signal(signal.SIGKILL)
    child.communicate(timeout=120)
    assert child.returncode == 1
    again = launched(*LONG, *FSDP2, code=None)
    assert re.search(r"continuing from step [1-6]\d of 72", again.out), again.said
    assert same(adapter(launched), adapter(launched, "whole"))
    parts = sorted(path.name for path in (launched.folder / "runs/own/checkpoints/step-000072").glob("*.safetensors"))
    assert parts == [f"{group}-0000{n}-of-00002.safetensors" for group in ("adapter", "optimizer") for n in (1, 2)]


@pytest.mark.slow
def test_a_cut_checkpoint_is_continued_by_another_number_of_processes(launched: Launched) -> None:
    assert launched(*LONG, *FSDP2, code=None).code == 0
    shorter = launched.folder / "runs/own/checkpoints"
    newest = max(shorter.iterdir())
    newest.rename(launched.folder / "newest")  # as if it had been killed before the last save
    (launched.folder / "runs/own/adapter/adapter_model.safetensors").unlink()
    three = Launched(launched.folder)
    three.world = 3
    before = load_file(launched.folder / "newest/adapter-00001-of-00002.safetensors")
    done = three(*LONG, *FSDP2, code=None)
    assert "continuing from step 70 of 72" in done.out, done.said
    found = {name.removesuffix(".weight"): value for name, value in adapter(three).items()}
    for name, value in before.items():
        assert torch.allclose(found[name.removesuffix(".weight")][: len(value)], value, atol=1e-2), name


def test_cutting_needs_a_launcher(desk: Desk) -> None:
    done = desk("train", "--recipe", "own.toml", *FSDP2, code=2)
    assert 'train.parallel = "fsdp2" is for the processes of a launcher, and this one stands alone' in done.err
    assert "torchrun --nproc-per-node N -m -- r1core" in done.err


def test_a_launcher_that_does_not_say_where_to_meet_is_told(desk: Desk) -> None:
    desk.environment = {"WORLD_SIZE": "2", "RANK": "0"}
    done = desk("train", "--recipe", "own.toml", code=2)
    assert "WORLD_SIZE = 2, as a launcher sets it, and no MASTER_ADDR, MASTER_PORT" in done.err


@pytest.mark.slow
def test_a_process_with_another_recipe_is_told_what_differs(desk: Desk, tmp_path: Path, tiny: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    desk.environment = {**meeting, "RANK": "0"}
    first = desk.start("train", "--recipe", "own.toml")
    other = Desk(desk.folder, environment={**meeting, "RANK": "1"})
    done = other("train", "--recipe", "own.toml", "--set", "train.learning_rate=0.5", code=2)
    first.kill()
    first.communicate(timeout=60)
    assert "process 1 does not work on the same as the first one" in done.err
    assert "learning_rate" in done.err
