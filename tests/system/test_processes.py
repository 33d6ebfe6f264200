"""Training and evaluation shared by two processes: the same results, and nobody left behind after a kill."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from .conftest import WARD, Desk, Done, furnish

TWO = (*WARD, "--set", "model.processes=2")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(adapted: tuple[Desk, Done], tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Desk:
    """The run of `adapted`, in two processes."""
    desk = furnish(tmp_path_factory.mktemp("shared") / "desk", tiny)
    desk.path = adapted[0].path
    desk("adapt", *TWO)
    return desk


def tensors(desk: Desk) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("adapter_model", "r1core_layers"):
        found |= load_file(desk.folder / f"runs/own/adapter/{name}.safetensors")
    return found


def test_two_processes_end_where_one_does(adapted: tuple[Desk, Done], shared: Desk) -> None:
    whole, _ = adapted
    one, two = tensors(whole), tensors(shared)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)
    figures = [json.loads((d.folder / "runs/own/manifest.json").read_text())["figures"] for d in (whole, shared)]
    assert [f["train_processes"] for f in figures] == [1, 2]
    lines = [(d.folder / "runs/own/metrics.jsonl").read_text().splitlines() for d in (whole, shared)]
    losses = [[json.loads(line)["loss"] for line in rows] for rows in lines]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    norms = [[json.loads(line)["grad_norm"] for line in rows] for rows in lines]  # Adam would not see a wrong scale
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
    rows = [
        [json.loads(x)["example_id"] for x in (d.folder / "runs/own/evaluation/base.jsonl").read_text().splitlines()]
        for d in (whole, shared)
    ]
    assert rows[0] == rows[1]


def test_a_killed_command_leaves_no_process_and_continues_to_the_same_bits(
    shared: Desk, tmp_path: Path, tiny: Path
) -> None:
    desk = furnish(tmp_path / "desk", tiny)
    desk.path = shared.path
    desk.stopped(signal.SIGKILL, "runs/own", 13, "train", *TWO)
    ends = time.monotonic() + 20
    while orphans := [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(desk.folder)]:
        assert time.monotonic() < ends, orphans
        psutil.wait_procs(orphans, timeout=1)
    assert re.search(r"continuing from step [1-8]\d of 96", desk("train", *TWO).out)
    assert all(torch.equal(tensors(desk)[name], tensor) for name, tensor in tensors(shared).items())


def test_a_killed_helper_is_one_clear_line_and_the_command_continues(shared: Desk, tmp_path: Path, tiny: Path) -> None:
    desk = furnish(tmp_path / "desk", tiny)
    desk.path = shared.path
    command = desk.start("train", *TWO)
    metrics, ends = desk.folder / "runs/own/metrics.jsonl", time.monotonic() + 150
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 13:
        assert time.monotonic() < ends
        assert command.poll() is None, command.communicate()
        command.poll()
    (helper,) = psutil.Process(command.pid).children()
    helper.kill()
    _, err = command.communicate(timeout=120)
    assert command.returncode == 1
    assert err.strip() == "error: a process that shared the work was ended (signal 9); start the command again"
    assert re.search(r"continuing from step [1-8]\d of 96", desk("train", *TWO).out)
    assert all(torch.equal(tensors(desk)[name], tensor) for name, tensor in tensors(shared).items())
