"""The examples of the hook pages: each keeps to the contract, and all of them run together through the command line."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from r1core import api
from r1core.plugins.find import load_file
from r1core.plugins.loading import Plugins
from r1core.testing.conformance import check_plugin
from r1core.testing.files import module_from
from r1core.testing.typist import typist

HOOKS = Path(__file__).parents[2] / "examples" / "hooks"
FILES = sorted(HOOKS.glob("*.py"))


def module_of(file: Path) -> ModuleType:
    return module_from(file, f"example_{file.stem}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_implements_its_hook_and_conforms(file: Path, tmp_path: Path) -> None:
    module = module_of(file)
    found = load_file(file).target
    own = vars(module)[found.__name__] if isinstance(found, type) else module
    assert Plugins.load([], files=[file]).hooks(file.stem) == [file.stem]
    asked = api.Example("dose", (api.Message("user", "Take 5 mg twice."),), "task")
    assert check_plugin(own, name=file.stem, examples=[asked], run_dir=tmp_path) == []


def records(file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "answer"])
        for number in range(40):
            writer.writerow([f"itchy rash, 5 mg, visit {number}", "Skin."])
        writer.writerow(["12345", "Skin."])


RECIPE = """
[run]
name = "examples"

[model]
base = "tiny-random"

[data]
kind = "text"
max_bad_fraction = 0.5

[data.files]
train = "train.csv"

[train]
steps = 1
packing = "none"

[evaluate]
metrics = ["metric/full-stop"]
max_new_tokens = 4

[rewards]
"reward/brevity" = 1.0

[plugins.callback]
file = "loss.txt"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return typist()(*arguments, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_all_examples_run_together(tmp_path: Path) -> None:
    records(tmp_path / "train.csv")
    (tmp_path / "my.toml").write_text(RECIPE, encoding="utf-8")
    loaded = [word for file in FILES if file.stem != "privacy" for word in ("--plugin", str(file))]
    checked = run(tmp_path, "check", "--recipe", "my.toml", *loaded)
    assert checked.returncode == 0, checked.stderr
    assert "warning: one training step" in checked.stdout  # validate
    mixed = ("--set", "curriculum.difficulty=difficulty/prompt-length")
    done = run(tmp_path, "adapt", "--recipe", "my.toml", *loaded, *mixed)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "runs" / "examples"
    assert "no letter in the prompt" in (home / "data" / "quarantine.jsonl").read_text()  # quality_gate
    assert "preprocess/dose" in (home / "data" / "train.jsonl").read_text()  # preprocess
    assert (home / "adapter" / "r1core_layers.safetensors").exists()  # extra_layer
    assert "metric/full-stop" in (home / "evaluation" / "summary.json").read_text()  # metric
    assert "All figures" in (home / "report.html").read_text()  # report
    assert "difficulty/prompt-length" in (home / "data" / "difficulty.json").read_text()  # difficulty
    assert "step 1 loss" in (tmp_path / "loss.txt").read_text()  # callback
    asked = run(tmp_path, "generate", "runs/examples", *loaded, "--prompt", "How many?", "--max-new-tokens", "20")
    assert asked.returncode == 0, asked.stderr
    assert not any(character.isdigit() for character in asked.stdout)  # decode_constraint


def test_a_privacy_policy_takes_over_the_gradient_and_refuses_packing(tmp_path: Path) -> None:
    records(tmp_path / "train.csv")
    (tmp_path / "my.toml").write_text(
        RECIPE.replace('[rewards]\n"reward/brevity" = 1.0', "")
        .replace('[plugins.callback]\nfile = "loss.txt"', "")
        .replace('metrics = ["metric/full-stop"]', ""),
        encoding="utf-8",
    )
    loaded = ["--plugin", str(HOOKS / "privacy.py"), "--plugin", str(HOOKS / "model_source.py")]
    loaded += ["--set", 'train.packing="padded"', "--set", "evaluate.baselines=false"]
    trained = run(tmp_path, "train", "--recipe", "my.toml", *loaded)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "examples" / "privacy" / "card.json").is_file()
    packed = run(
        tmp_path, "train", "--recipe", "my.toml", *loaded, "--set", "train.packing=shared_prefix", "--run", "b"
    )
    assert packed.returncode == 2
    assert 'train.packing = "padded"' in packed.stderr
    mixed = run(tmp_path, "train", "--recipe", "my.toml", *loaded, "--set", "curriculum.difficulty=loss", "--run", "c")
    assert mixed.returncode == 2
    assert "a curriculum under privacy/" in mixed.stderr
    assert 'curriculum.difficulty = ""' in mixed.stderr


def test_the_plugin_of_ten_lines_conforms(tmp_path: Path) -> None:
    module = module_of(HOOKS.parent / "plugin_in_ten_lines.py")
    assert check_plugin(module, name="plugin_in_ten_lines", run_dir=tmp_path) == []


def test_own_data_own_model_and_a_plugin_file_as_the_readme_says(tmp_path: Path, r1core_tiny_model: Path) -> None:
    for file in (HOOKS.parent / "own_data").iterdir():
        shutil.copy(file, tmp_path)
    shutil.copytree(r1core_tiny_model, tmp_path / "model")
    shutil.copy(HOOKS.parent / "plugin_in_ten_lines.py", tmp_path)
    checked = run(tmp_path, "check", "--recipe", "my.toml", "--plugin", "plugin_in_ten_lines.py")
    assert checked.returncode == 0, checked.stderr
    assert "nothing stands in the way" in checked.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("plugins",),
        ("plugins", "show", "clinical_rules"),
        ("domains", "show", "medical"),
        ("models",),
        ("new", "plugin", "glossary"),
        ("new", "domain", "cardio"),
        ("merge", "--help"),
        ("umls", "--help"),
        ("rules", "--help"),
    ],
    ids=" ".join,
)
def test_cheap_commands_of_the_docs_work(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    if words[0] == "new":
        assert (tmp_path / f"{words[1]}s" / words[2] / "pyproject.toml").is_file()
