"""What a command loads, reruns and rechecks: only what it depends on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1core.selection import Selection
from r1core.workbench import open_bench

from .conftest import RECIPE, WARD, Desk, Done

OWN = ("--recipe", "own.toml")
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "spacy", "sklearn", "pandas"}:
            sys.stderr.write(f"imported {name}\\n")
            sys.exit(97)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def light(desk: Desk) -> Desk:
    """A desk where importing a heavy library ends the command."""
    guard = desk.folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(REFUSE)
    desk.path, desk.fresh = [guard], True
    return desk


def test_checking_plain_prompts_imports_no_heavy_library(light: Desk) -> None:
    done = light("check", *OWN, "--set", "model.template=plain", "--json").json()
    assert done["problems"] == []
    forecast = done["forecast"]
    assert forecast["rows"].startswith("48 to train on")
    for part in ("training about ", "12 steps", "GFLOP/s", "on one core"):
        assert part in forecast["time"]
    less = light("check", *OWN, "--set", "model.template=plain", "--set", "data.max_rows=8", "--json").json()
    assert "2 steps" in less["forecast"]["time"]
    light("prepare", *OWN, "--set", "model.template=plain", "--trace", "n1")


@pytest.mark.usefixtures("weights")
def test_checking_the_medical_domain_imports_no_heavy_library(light: Desk) -> None:
    done = light("check", "medical", "--json").json()
    assert done["problems"] == []
    assert {"rows", "time", "disk", "memory"} <= done["forecast"].keys()


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(("site", "code"), [pytest.param("block:7", 0, marks=pytest.mark.slow), ("block:30", 2)])
def test_a_layers_site_is_one_of_the_real_models(site: str, code: int, desk: Desk) -> None:
    """The layer itself is tried on a tiny model of two blocks."""
    done = desk("check", "medical", "--deep", "--set", f"plugins.umls.site={site}", code=code)
    assert ("site 'block:30': the model has 30 blocks" in done.out) == (code == 2)


def test_broken_weights_are_told_by_check(desk: Desk) -> None:
    path = desk.folder / "tiny/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    [problem] = desk("check", *OWN, "--json", code=2).json()["problems"]
    assert "its header says" in problem["found"]
    assert problem["fix"] == "copy or download the model again"


def test_a_stage_runs_again_only_for_keys_that_it_reads(desk: Desk) -> None:
    short = ("train", *OWN, "--set", "train.steps=1")
    desk(*short)
    done = desk(*short, "--set", "model.threads=2", "--set", "train.keep_checkpoints=1")
    assert "prepare: skipped, nothing that it depends on changed" in done.out
    assert "train: recipe: model.threads was 1 and is 2" in done.out
    again = desk(*short, "--set", "model.threads=2", "--set", "model.template=plain")
    assert 'prepare: recipe: model.template was "chat" and is "plain"' in again.out


TERMS = """
import hashlib
from pathlib import Path

from r1core import api


class Known:
    name, higher_is_better = "terms/known", True
    file = Path("terms.txt")

    def __call__(self, predictions, references, examples):
        known = set(self.file.read_text().split())
        return sum(text in known for text in references) / len(references)

    def input_files(self):
        return [self.file]

    def fingerprint(self):
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


class Terms(api.Plugin):
    @api.hookimpl
    def metric(self):
        return [Known()]
"""


def test_a_changed_file_of_a_metric_makes_evaluate_run_again(desk: Desk) -> None:
    desk.write("terms.py", TERMS)
    desk.write("own.toml", RECIPE.replace("baselines = false", 'metrics = ["terms/known"]\nbase_model = false'))
    command = ("evaluate", *OWN, "--plugin", "./terms.py", "--set", "data.kind=text", "--set", "train.steps=1")

    def measured(terms: str) -> tuple[str, float]:
        desk.write("terms.txt", terms)
        said = desk(*command).out
        rows = json.loads((desk.folder / "runs/own/evaluation/summary.json").read_text())
        return said, next(row["value"] for row in rows if row["metric"] == "terms/known")

    assert measured("heart lungs skin")[1] == 1.0
    assert "evaluate: skipped, nothing that it depends on changed" in measured("heart lungs skin")[0]
    said, value = measured("nothing")
    assert "train: skipped" in said
    assert "evaluate: component terms/known changed" in said
    assert value == 0.0


def test_verify_rechecks_the_inputs_that_are_there(desk: Desk) -> None:
    desk("prepare", *OWN)
    inputs = json.loads((desk.folder / "runs/own/manifest.json").read_text())["inputs"]
    assert inputs["files: notes.csv"]["path"] == str(desk.folder / "notes.csv")
    assert {"model: config.json", "model: model.safetensors", "model: tokenizer.json"} <= inputs.keys()
    named = sum(entry["path"] is not None for entry in inputs.values())
    assert f"{named} of {named} input files are here and were rechecked" in desk("verify", "runs/own").out

    notes = desk.folder / "notes.csv"
    notes.write_text(notes.read_text().replace("cough", "cold"))
    done = desk("verify", "runs/own", code=1)
    assert f"error: input: files: notes.csv: {notes} is not what the run read" in done.out
    assert "NOT as recorded" in done.out

    notes.unlink()
    (desk.folder / "tiny/tokenizer.json").unlink()
    done = desk("verify", "runs/own")
    assert f"note: input: files: notes.csv: {notes} is not here, so it was not rechecked" in done.out
    assert "note: input: model: tokenizer.json: " in done.out
    assert f"{named - 2} of {named} input files are here and were rechecked" in done.out


def test_a_redacted_report_names_no_folder(copy: Desk, adapted: tuple[Desk, Done]) -> None:
    done = copy("report", "--redact", *WARD)
    page = Path(done.out.splitlines()[-1].removeprefix("report: ")).read_text()
    assert "files: notes.csv" in page
    for folder in (copy.folder, adapted[0].folder, Path.home()):
        assert str(folder) not in page


def test_rule_files_and_facts_are_inputs_of_the_stage_that_reads_them(desk: Desk) -> None:
    (desk.folder / "facts.json").write_text("{}")
    rules = desk.write("rules.yaml", "version: 2\n")
    recipe = RECIPE.replace("plugins = []", 'plugins = ["clinical_rules"]')
    recipe += '[report]\ndemo_facts = "facts.json"\n[plugins.clinical_rules]\nfiles = ["rules.yaml"]\n'
    path = desk.write("own.toml", recipe)
    bench = open_bench(Selection(recipe=path))
    assert bench.input_files("evaluate") == {
        "clinical_rules/forbid: rules.yaml": rules,
        "report.demo_facts: facts.json": desk.folder / "facts.json",
    }
    assert bench.input_files("train") == {}
    assert rules not in bench.input_files("prepare").values()
