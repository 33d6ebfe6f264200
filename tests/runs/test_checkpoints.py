"""Checkpoints under kill -9, damage and a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from r1core.api import R1Error  # noqa: E402 - after the skip
from r1core.runs import checkpoints  # noqa: E402
from r1core.runs.checkpoints import CheckpointWarning, latest_valid, prune, save  # noqa: E402
from r1core.runs.directory import RunDirectory  # noqa: E402

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def put(run: RunDirectory, step: int, **options: str) -> checkpoints.Checkpoint:
    return save(run, step, {"model": {"w": torch.full((3,), float(step))}}, {"step": step}, **options)


def steps(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_what_is_saved_comes_back_bit_for_bit(run: RunDirectory) -> None:
    generator = torch.Generator().manual_seed(4)
    shared = torch.randn(4, 6, generator=generator)
    model = {"w": shared.t(), "again": shared, "half": shared.bfloat16(), "nan": torch.tensor([float("nan"), -0.0])}
    rng = {"torch": generator.get_state()}
    state = {"loss": 0.1 + 0.2, "order": [3, 1, 2], "kl": {"beta": 1e-300}, "name": "é"}
    save(run, 120, {"model": model, "rng": rng}, state)
    found = latest_valid(run)
    assert found is not None
    assert (found.step, found.path.name, found.groups) == (120, "step-000120", ("model", "rng"))
    loaded = found.tensors("model")
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {name: t.dtype for name, t in model.items()}
    for name, tensor in model.items():
        assert torch.equal(loaded[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8))
    expected = torch.rand(5, generator=generator)
    generator.set_state(found.tensors("rng")["torch"])
    assert torch.equal(torch.rand(5, generator=generator), expected)
    assert found.state() == state
    assert {path.suffix for path in found.path.iterdir()} == {".json", ".safetensors"}
    with pytest.raises(R1Error, match="holds no tensors 'optimizer'"):
        found.tensors("optimizer")


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "no hashes"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(run: RunDirectory, damage: str) -> None:
    put(run, 1)
    newest = put(run, 2)
    file = newest.path / ("hashes.json" if damage == "no hashes" else "model.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-2])
    else:
        file.unlink()
    with pytest.warns(CheckpointWarning, match="step-000002 is damaged"):
        found = latest_valid(run)
    assert found is not None
    assert found.step == 1
    assert prune(run, keep=1) == []
    assert put(run, 2).tensors("model")["w"].tolist() == [2.0, 2.0, 2.0]
    assert latest_valid(run) == checkpoints.latest_valid(run)
    assert [path.startswith("step-000002") for path in steps(run)] == [False, True]


def test_a_change_after_opening_is_refused(run: RunDirectory) -> None:
    found = put(run, 1)
    (found.path / "state.json").write_text("{}")
    with pytest.raises(R1Error, match="was changed after it was saved"):
        found.state()


def test_pruning_keeps_the_newest_valid_ones(run: RunDirectory) -> None:
    for step in (1, 2, 3, 1_000_000):
        put(run, step)
    (run.checkpoints / ".tmp-step-000009-1-ff").mkdir()
    assert prune(run, keep=2) == [2, 1]
    assert steps(run) == ["step-000003", "step-1000000"]
    with pytest.raises(ValueError, match="keep = 0"):
        prune(run, keep=0)
    checkpoints.clear(run)
    assert latest_valid(run) is None


def test_a_checkpoint_of_another_training_is_not_resumed(run: RunDirectory) -> None:
    put(run, 1, fingerprint="new")
    put(run, 2, fingerprint="old")
    found = latest_valid(run, fingerprint="new")
    assert found is not None
    assert found.step == 1
    assert latest_valid(run, fingerprint="third") is None


def test_a_state_with_nan_makes_no_checkpoint(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save(run, 1, {}, {"loss": float("nan")})
    assert steps(run) == []


KILLER = """
# Imports torch once, then forks savers one after the other, kills each with SIGKILL and says what each had promised.
import json, os, random, signal, sys, torch
from r1core.runs.checkpoints import latest_valid, prune, save
from r1core.runs.directory import RunDirectory
run = RunDirectory(sys.argv[1])

def saver(pipe):
    found = latest_valid(run)
    for step in range(found.step + 1 if found else 1, 4000):
        os.write(pipe, b"saving\\n")
        save(run, step, {"model": {"w": torch.full((20_000,), float(step))}, "rng": {"s": torch.ones(9)}}, {"at": step})
        os.write(pipe, b"%d\\n" % step)
        prune(run, keep=2)

chance = random.Random(11)
for _ in range(25):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        saver(writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        lines = [stream.readline() for _ in range(chance.randint(1, 12))]
        for _ in range(chance.randint(0, 60_000)):  # lands the kill inside a save, not only at its start
            pass
        os.kill(child, signal.SIGKILL)
        lines += stream.readlines()
    os.waitpid(child, 0)
    found = latest_valid(run)
    values = found.tensors("model")["w"].unique().tolist() if found else []
    promised = [int(line) for line in lines if line.strip().isdigit()]
    print(json.dumps([promised, found and found.step, values, found and found.state()]))
"""


def test_kill_9_at_any_moment_leaves_the_last_good_checkpoint(run: RunDirectory) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "-c", KILLER, str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 25
    last = 0
    for promised, step, values, state in rounds:
        last = max([last, *promised])
        assert step in ({last, last + 1} if last else {None, 1})  # renamed, but killed before it could say so
        if step:
            assert values == [float(step)]
            assert state == {"at": step}
            last = step
    assert last > 25


FILLER = """
import sys, torch
from r1core.runs.checkpoints import save
from r1core.runs.directory import RunDirectory
from r1core.runs.files import DiskFull
if len(sys.argv) > 2:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
run = RunDirectory(sys.argv[1])
save(run, 1, {"model": {"w": torch.ones(50_000)}}, {})
try:
    for step in range(2, 50):
        save(run, step, {"model": {"w": torch.ones(50_000 * step)}}, {})
except DiskFull as error:
    print(error.needed, error)
    sys.exit(1)
"""


def test_a_file_size_limit_leaves_the_last_good_checkpoint(run: RunDirectory) -> None:
    command = [sys.executable, "-c", FILLER, str(run.path), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert_full_disk_was_survived(run, done)
    assert steps(run) == ["step-000001"]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        run = RunDirectory(disk / "run")
        command = [sys.executable, "-c", FILLER, str(run.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        assert_full_disk_was_survived(run, done)
        assert "No space left" in done.stdout
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def assert_full_disk_was_survived(run: RunDirectory, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stderr
    needed, _, message = done.stdout.partition(" ")
    assert int(needed) >= 400_000
    assert f"{int(needed):,} bytes" in message
    assert str(run.checkpoints / "step-") in message
    found = latest_valid(run)
    assert found is not None
    assert json.loads((found.path / "hashes.json").read_text())["step"] == found.step
    assert not [name for name in steps(run) if name.startswith(".tmp-")]
