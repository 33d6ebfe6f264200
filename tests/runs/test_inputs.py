"""Input files: who names them, what the manifest keeps of them, and what `verify` says of them later."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from r1core.plugins.guard import Guarded
from r1core.runs.directory import RunDirectory
from r1core.runs.fingerprint import Fingerprint, stage_fingerprint
from r1core.runs.inputs import model_files, named_files
from r1core.runs.stages import run_stage
from r1core.runs.verify import verify


class Reader:
    """A component that names files."""

    name = "p/reader"

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def input_files(self) -> tuple[Path, ...]:
        return self.paths

    def fingerprint(self) -> str:
        return "1"


def test_components_name_their_files_without_their_folders(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "rules.yaml", tmp_path / "b" / "rules.yaml"
    guarded = Guarded("p", "decode_constraint", Reader(one, two, one))
    assert named_files([guarded, object(), None]) == {"p/reader: rules.yaml": one, "p/reader: rules.yaml (2)": two}
    assert Guarded("p", "metric", object()).input_files() == ()


def test_what_raises_while_naming_is_told_in_the_plugins_name() -> None:
    class Broken(Reader):
        def input_files(self) -> tuple[Path, ...]:
            raise KeyError("files")

    with pytest.raises(Exception, match="plugin 'p' failed in hook 'preprocess': KeyError"):
        named_files([Guarded("p", "preprocess", Broken())])


def test_of_a_model_directory_the_files_that_loading_reads(tmp_path: Path) -> None:
    wanted = {"config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
              "tokenizer_config.json", "chat_template.jinja", "merges.txt"}  # fmt: skip
    for name in (*wanted, "README.md", "LICENSE", "source.json", ".gitattributes"):
        (tmp_path / name).write_text(name)
    assert {path.name for path in model_files(tmp_path).values()} == wanted
    assert model_files(tmp_path)["model: config.json"] == tmp_path / "config.json"
    assert model_files(Path("org/name")) == {}


def fingerprint(stage: str, files: dict[str, Path]) -> Fingerprint:
    return stage_fingerprint(
        stage, recipe_sections={}, inputs={}, source="s", plugins=[], components={}, files=files
    )  # fmt: skip


def recorded(run: RunDirectory) -> dict[str, dict[str, object]]:
    inputs: dict[str, dict[str, object]] = json.loads(run.manifest.read_bytes())["inputs"]
    return inputs


def test_a_stage_records_its_files_as_they_were_when_it_began(tmp_path: Path) -> None:
    run, notes = RunDirectory(tmp_path / "run"), tmp_path / "notes.csv"
    notes.write_text("before")

    def body() -> None:
        notes.write_text("changed while the stage ran")
        run.data_card.parent.mkdir()
        run.data_card.write_text("{}")

    run_stage(run, "prepare", fingerprint("prepare", {"files: notes.csv": notes}), [run.data_card], body)
    entry = recorded(run)["files: notes.csv"]
    assert entry["sha256"] == hashlib.sha256(b"before").hexdigest()
    assert (entry["path"], entry["bytes"], entry["stage"]) == (str(notes), 6, "prepare")
    [finding] = verify(run)
    assert (finding.kind, finding.path, finding.severity) == ("input", "files: notes.csv", "error")


def test_what_a_stage_no_longer_reads_is_forgotten_and_others_stay(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    files = {name: tmp_path / name for name in ("old", "new", "rules")}
    for path in files.values():
        path.write_text(path.name)

    def stage(name: str, file: str) -> None:
        made = fingerprint(name, {file: files[file]})
        run_stage(run, name, made, [run.data_card], lambda: run.data_card.write_text(""), force=True)  # type: ignore[func-returns-value]

    run.data_card.parent.mkdir()
    stage("prepare", "old")
    stage("evaluate", "rules")
    stage("prepare", "new")
    assert set(recorded(run)) == {"new", "rules"}


def test_where_files_lie_does_not_make_a_stage_run_again(tmp_path: Path) -> None:
    here, there = fingerprint("prepare", {"a": tmp_path / "1"}), fingerprint("prepare", {"a": tmp_path / "2"})
    assert here.digest == there.digest
    assert str(tmp_path) not in json.dumps(here.to_json())
