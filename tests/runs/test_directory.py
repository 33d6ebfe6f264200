"""The run directory, its lock and its logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1core.api import R1Error, UserError
from r1core.runs.directory import JsonLines, RunDirectory


def test_only_its_owner_may_enter(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "one")
    assert run.path.stat().st_mode & 0o777 == 0o700
    with run.lock():
        run.event("start")
    assert run.path.joinpath("events.jsonl").stat().st_mode & 0o777 == 0o600
    assert RunDirectory(run.path).path == run.path


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_bytes(b"")
    before = tmp_path.stat().st_mode
    with pytest.raises(UserError, match="holds other files"):
        RunDirectory(tmp_path)
    assert tmp_path.stat().st_mode == before
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "thesis.docx")
    with pytest.raises(UserError, match="no run at"):
        RunDirectory(tmp_path / "nothing", create=False)


HOLDER = """
import sys
from r1core.runs.directory import RunDirectory
with RunDirectory(sys.argv[1]).lock("r1core train"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_command_is_told_who_holds_the_run_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"pid {holder.pid}: r1core train") as caught, run.lock():
            pass
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
        holder.kill()
    with run.lock():
        pass


def test_taking_the_lock_sweeps_up_after_a_killed_command(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.data.mkdir()
    leftover = run.data / ".tmp-train.jsonl-1-ab"
    leftover.write_bytes(b"half")
    folder = run.path / ".tmp-adapter-1-cd"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    with run.lock():
        assert not leftover.exists()
        assert not folder.exists()


def test_a_torn_last_line_is_passed_over_and_cut_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    JsonLines(path).append({"step": 1, "loss": 0.1})
    with path.open("ab") as stream:
        stream.write(b'{"step": 2, "lo')
    assert list(JsonLines(path).read()) == [{"step": 1, "loss": 0.1}]
    log = JsonLines(path)
    log.append({"step": 2, "loss": 0.05})
    log.append({"step": 3, "loss": 0.01})
    assert [record["step"] for record in JsonLines(path).read()] == [1, 2, 3]
    log.keep(lambda record: record["step"] <= 2)
    log.append({"step": 3, "loss": 0.02})
    assert [record["loss"] for record in log.read()] == [0.1, 0.05, 0.02]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(R1Error, match=r"events.jsonl:2: "):
        list(JsonLines(path).read())
