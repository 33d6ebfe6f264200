"""Skipping, rerunning and verifying, on a run of two files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1core.api import R1Error, UserError
from r1core.runs.directory import RunDirectory
from r1core.runs.fingerprint import Fingerprint, stage_fingerprint
from r1core.runs.manifest import Manifest
from r1core.runs.stages import StageResult, but_for_code, output_hashes, run_stage
from r1core.runs.verify import verify

DATA = Path("data/train.jsonl")


def fingerprint(rows: int) -> Fingerprint:
    return stage_fingerprint(
        "prepare", recipe_sections={"data": {"rows": rows}}, inputs={}, source="s", plugins=[], components={}
    )


class Prepare:
    """A stage body that counts how often it ran."""

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.calls, self.told = run, 0, []

    def __call__(self) -> dict[str, int]:
        self.calls += 1
        self.run.data.mkdir(exist_ok=True)
        (self.run.path / DATA).write_text(f"{self.calls}\n")
        return {"rows": self.calls}

    def stage(self, rows: int = 3, **options: bool) -> StageResult:
        return run_stage(self.run, "prepare", fingerprint(rows), [DATA], self, tell=self.told.append, **options)


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    return Prepare(RunDirectory(tmp_path / "run"))


def test_an_unchanged_stage_is_skipped_with_its_figures(prepare: Prepare) -> None:
    assert prepare.stage().status == "done"
    again = prepare.stage()
    assert (again.status, again.figures, prepare.calls) == ("skip", {"rows": 1}, 1)
    assert prepare.told == ["prepare: not done yet", "prepare: skipped, nothing that it depends on changed"]
    assert [event["event"] for event in prepare.run.events.read()] == ["start", "done", "skip"]


def test_what_changed_is_said(prepare: Prepare) -> None:
    prepare.stage(3)
    assert prepare.stage(4).why == ("recipe: data.rows was 3 and is 4",)
    (prepare.run.path / DATA).write_text("edited\n")
    assert prepare.stage(4).why == ("its output data/train.jsonl was changed",)
    (prepare.run.path / DATA).unlink()
    assert prepare.stage(4).why == ("its output data/train.jsonl is missing",)
    assert prepare.stage(4, force=True).why == ("asked for",)


def test_a_failure_leaves_the_stage_not_done(prepare: Prepare) -> None:
    prepare.stage(3)

    def fails() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(prepare.run, "prepare", fingerprint(4), [DATA], fails)
    assert prepare.stage(3).why == ("not done yet",)
    with pytest.raises(R1Error, match=r"ended without its output other\.json"):
        run_stage(prepare.run, "evaluate", fingerprint(4), [Path("other.json")], lambda: None)


def test_a_refusal_leaves_the_earlier_result_as_it_was(prepare: Prepare) -> None:
    prepare.stage(3)

    def refuses() -> None:
        raise UserError("no budget is left", fix="another data set")

    with pytest.raises(UserError):
        run_stage(prepare.run, "prepare", fingerprint(4), [DATA], refuses)
    assert prepare.stage(3).status == "skip"
    assert verify(prepare.run) == []

    def refuses_late() -> None:
        (prepare.run.path / DATA).write_text("half\n")
        raise UserError("a bad row", fix="mend it")

    with pytest.raises(UserError):
        run_stage(prepare.run, "prepare", fingerprint(4), [DATA], refuses_late)
    assert prepare.stage(3).why == ("not done yet",)


def test_a_result_that_only_the_code_has_left_behind_is_told_apart(prepare: Prepare) -> None:
    prepare.stage(3)
    newer = replace(fingerprint(3), source="another")
    kept = but_for_code(prepare.run, "prepare", newer)
    assert kept == fingerprint(3)
    assert but_for_code(prepare.run, "prepare", replace(fingerprint(4), source="another")) is None
    (prepare.run.path / DATA).write_text("edited\n")
    assert but_for_code(prepare.run, "prepare", newer) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from r1core.runs.directory import RunDirectory
from r1core.runs.fingerprint import stage_fingerprint
from r1core.runs.stages import run_stage
def body():
    os.kill(os.getpid(), signal.SIGKILL)
made = stage_fingerprint("prepare", recipe_sections={}, inputs={}, source="s", plugins=[], components={})
run_stage(RunDirectory(sys.argv[1]), "prepare", made, [Path("data/train.jsonl")], body)
"""


def test_a_kill_inside_a_stage_leaves_it_not_done(prepare: Prepare) -> None:
    prepare.stage(3)
    done = subprocess.run([sys.executable, "-c", KILLED, str(prepare.run.path)], check=False)
    assert done.returncode == -9
    assert prepare.stage(3).why == ("not done yet",)


def test_a_probe_chooses_once(prepare: Prepare) -> None:
    manifest = Manifest(prepare.run)
    assert manifest.probe("precision", lambda: "bfloat16") == "bfloat16"
    assert Manifest(RunDirectory(prepare.run.path)).probe("precision", lambda: "float32") == "bfloat16"


def test_the_manifest_names_machine_packages_inputs_and_artefacts(prepare: Prepare, tmp_path: Path) -> None:
    prepare.run.recipe.write_text("[train]\nsteps = 3\n")
    source = tmp_path / "source.csv"
    source.write_text("a,b\n")
    manifest = Manifest(prepare.run)
    manifest.start(recipe={"train": {"steps": 3}}, seed=7, plugins=[])
    run_stage(prepare.run, "prepare", fingerprint(3), [DATA], prepare, inputs={"source": source, "model": "ab" * 32})
    content = json.loads(prepare.run.manifest.read_bytes())
    assert content["seed"] == 7
    assert content["device"]["cores"] >= 1
    assert content["device"]["memory_bytes"] > 2**28
    assert content["packages"]["numpy"].count(".") >= 1
    assert content["inputs"]["source"]["bytes"] == 4
    assert set(content["artefacts"]) == {"recipe.toml", "data/train.jsonl"}
    assert content["artefacts"]["data/train.jsonl"]["sha256"] == output_hashes(prepare.run, DATA)["data/train.jsonl"]
    assert verify(prepare.run) == []


def test_a_command_on_another_machine_that_runs_nothing_leaves_the_machine_as_it_was(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"cpu": "one", "accelerators": ["GPU"]}
    monkeypatch.setattr("r1core.runs.manifest.device", lambda: here)
    prepare.stage()
    monkeypatch.setattr("r1core.runs.manifest.device", lambda: {"cpu": "another"})
    Manifest(prepare.run).start(recipe={}, seed=7, plugins=[])
    assert prepare.stage().status == "skip"
    content = Manifest(prepare.run).read()
    assert content["device"] == content["stages"]["prepare"]["device"] == here
    assert prepare.stage(4).status == "done"
    assert Manifest(prepare.run).read()["device"] == {"cpu": "another"}


def test_verify_finds_everything_that_differs(prepare: Prepare, tmp_path: Path) -> None:
    run = prepare.run
    source = tmp_path / "source.csv"
    source.write_text("a,b\n")
    lock = [
        {"name": "gone", "distribution": "r1core-no-such-plugin", "version": "1.0", "source_sha256": "a"},
        {"name": "moved", "distribution": "numpy", "version": "0.0.1", "source_sha256": "a"},
        {"name": "local", "distribution": "(local)", "version": "", "source_sha256": "a"},
        {"name": "edited", "distribution": "r1core-edited", "version": "2", "source_sha256": "a"},
    ]
    Manifest(run).start(recipe={}, seed=1, plugins=lock)
    prepare.stage()
    run_stage(run, "evaluate", fingerprint(9), [Path("evaluation")], lambda: _two_files(run), inputs={"source": source})
    (run.path / DATA).write_text("edited\n")
    (run.evaluation / "two.json").unlink()
    (run.path / "notes.txt").write_text("mine")
    (run.path / ".tmp-x").write_text("torn")
    source.write_text("c,d\n")
    now = [lock[-1] | {"source_sha256": "b"}]
    found = {(finding.kind, finding.path, finding.severity) for finding in verify(run, installed=now)}
    assert found == {
        ("changed", "data/train.jsonl", "error"),
        ("missing", "evaluation/two.json", "error"),
        ("extra", "notes.txt", "error"),
        ("extra", ".tmp-x", "note"),
        ("input", "source", "error"),
        ("plugin", "gone", "error"),
        ("plugin", "moved", "error"),
        ("plugin", "edited", "error"),
        ("plugin", "local", "note"),
    }
    assert all("\n" not in str(finding) for finding in verify(run))
    source.unlink()
    assert ("input", "note") in {(finding.kind, finding.severity) for finding in verify(run)}


def test_what_is_no_run_and_what_is_no_manifest_is_said(prepare: Prepare) -> None:
    with pytest.raises(UserError, match="no manifest"):
        verify(prepare.run)
    prepare.run.manifest.write_text("{")
    with pytest.raises(R1Error, match=r"manifest\.json: not JSON"):
        verify(prepare.run)


def _two_files(run: RunDirectory) -> None:
    run.evaluation.mkdir()
    for name in ("one.json", "two.json"):
        (run.evaluation / name).write_text("[]")
