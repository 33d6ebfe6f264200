"""Private runs by the command line, as a user does them: what they leave, what they refuse, what they never tell."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from r1core.testing.typist import typist

ROOT = Path(__file__).parents[3]
PLANTED = ("zanzibar", "quokka", "periwinkle", "marzipan")  # stand in every record of somebody
RECIPE = """
[run]
name = "ward"
plugins = ["dp"]

[model]
base = "tiny-random"
threads = 1

[data]
kind = "text"

[data.files]
train = "ward.csv"

[data.columns]
group = "patient"

[train]
steps = 4
batch_size = 6
packing = "padded"
checkpoint_every = 2

[evaluate]
baselines = false
max_new_tokens = 4

[plugins.dp]
dataset_id = "ward"
ledger = "ledgers"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    loaded = ["--plugin", str(ROOT / "examples" / "hooks" / "model_source.py")] if arguments[0] != "dp" else []
    return typist()(*arguments, *loaded, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a recipe and a finished private run."""
    folder = tmp_path_factory.mktemp("ward")
    with (folder / "ward.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("id", "patient", "text", "answer"))
        for number in range(160):
            word = PLANTED[number % 4]
            table.writerow((f"r{number}", f"p{number % 80}", f"Patient of {word} number {number}?", f"Yes, {word}."))
    (folder / "my.toml").write_text(RECIPE, encoding="utf-8")
    done = run(folder, "adapt", "--recipe", "my.toml")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_the_card_says_what_was_spent(ward: Path) -> None:
    card = json.loads((ward / "runs/ward/privacy/card.json").read_text())
    people = card["units"]
    assert 50 <= people <= 80  # of 80, those in the training part
    assert card["records_of_a_unit_at_most"] == 2
    assert card["sample_rate"] == pytest.approx(6 / people)
    assert card["delta"] == pytest.approx(people**-1.1)
    assert card["steps_counted"] == 4
    assert 2.9 < card["epsilon"] <= 3.0
    assert card["epsilon"] == max(card["epsilon_prv"], card["epsilon_pld"])
    assert [point["steps"] for point in card["curve"]] == [1, 2, 3, 4]
    assert card["curve"][-1]["epsilon"] == pytest.approx(card["epsilon_prv"], abs=1e-3)
    assert "for each group (patient)" in card["guarantee"]
    assert f"privacy: {card['guarantee']}" in (ward / "said.txt").read_text()


def test_the_ledger_is_shown_and_agrees_with_the_card(ward: Path) -> None:
    shown = run(ward, "dp", "ledger", "ward", "--folder", "ledgers", "--json")
    assert shown.returncode == 0, shown.stderr
    told, card = json.loads(shown.stdout), json.loads((ward / "runs/ward/privacy/card.json").read_text())
    assert told["epsilon"] == pytest.approx(card["epsilon"], abs=1e-6)
    assert told["head"] == card["ledger_head"]
    assert told["budget"] == 3.0
    named = run(ward, "dp", "ledger", "--folder", "ledgers")
    assert named.stdout.strip() == "ward"
    missing = run(ward, "dp", "ledger", "nobody", "--folder", "ledgers")
    assert missing.returncode == 2
    assert "no such ledger" in missing.stderr


def test_no_text_of_a_record_reaches_what_is_handed_on(ward: Path) -> None:
    home = ward / "runs/ward"
    shared = [
        home / "report.html",
        home / "README.md",
        home / "metrics.jsonl",
        home / "events.jsonl",
        home / "recipe.toml",
    ]
    shared += [*(home / "adapter").iterdir(), *(home / "privacy").iterdir(), *(ward / "ledgers").iterdir()]
    shared += [home / "manifest.json"]
    for file in shared:
        content = file.read_bytes().lower()
        for word in PLANTED:
            assert word.encode() not in content, file
    for line in (home / "metrics.jsonl").read_text().splitlines():
        assert set(json.loads(line)) <= {"step", "learning_rate", "grad_norm", "noise_multiplier"}
    assert "Privacy" in (home / "report.html").read_text()


def test_another_run_on_the_same_people_is_refused(ward: Path) -> None:
    for more in ([], ["--set", "train.learning_rate=0.01"], ["--set", "plugins.dp.max_grad_norm=0.1"]):
        again = run(ward, "train", "--recipe", "my.toml", "--run", "runs/another", *more)
        assert again.returncode == 2
        assert "of its budget of 3 is spent" in again.stderr
    other = run(ward, "train", "--recipe", "my.toml", "--run", "runs/c", "--set", "plugins.dp.dataset_id=ward-b")
    assert other.returncode == 2
    assert "stand in the ledger of ward already" in other.stderr


def test_a_refused_trial_leaves_the_run_as_it_was(ward: Path) -> None:
    recipe = (ward / "runs/ward/recipe.toml").read_bytes()
    trial = run(ward, "adapt", "--recipe", "my.toml", "--set", "train.steps=9")
    assert trial.returncode == 2
    assert "no noise of use" in trial.stderr
    assert (ward / "runs/ward/recipe.toml").read_bytes() == recipe
    again = run(ward, "report", "runs/ward")
    assert again.returncode == 0, again.stderr
    assert "train: skipped" in again.stdout


@pytest.mark.slow
def test_the_hooks_of_opacus_train_as_well(ward: Path) -> None:
    other = ("plugins.dp.engine=opacus", "plugins.dp.dataset_id=by-hooks", "plugins.dp.namespace=others")
    more = [word for change in other for word in ("--set", change)]
    done = run(ward, "train", "--recipe", "my.toml", "--run", "runs/hooks", *more)
    assert done.returncode == 0, done.stderr
    card = json.loads((ward / "runs/hooks/privacy/card.json").read_text())
    assert card["engine"] == "opacus"
    assert (ward / "runs/hooks/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.packing=shared_prefix", 'set train.packing = "padded"'),
        ("adapter.dropout=0.1", "set adapter.dropout = 0"),
        ("adapter.kind=dora", 'set adapter.kind = "lora"'),
        ("strategy.norms.mode=full", 'set strategy.norms.mode = "frozen"'),
        ("curriculum.difficulty=loss", 'set curriculum.difficulty = ""'),
        ("evaluate.baselines=true", "set evaluate.baselines = false"),
        ("train.parallel=fsdp2", 'set train.parallel = "ddp"'),
        ("run.privacy=none", "leave one out"),
        ("data.kind=choice", "list the labels in data.choices"),
        ("plugins.dp.accountant=gdp", "the truth is 5.15"),
        ("plugins.dp.accountant=rdp", "a ninth more noise"),
        ("plugins.dp.seed=7", "come from the operating system"),
        ("plugins.dp.noise_seed=7", "come from the operating system"),
        ("plugins.dp.sampling=shuffle", "Poisson sampling"),
        ("plugins.dp.epsilon=0", "greater than 0"),
    ],
)
def test_check_refuses_with_the_reason(ward: Path, change: str, said: str) -> None:
    checked = run(ward, "check", "--recipe", "my.toml", "--run", "runs/d", "--set", change)
    assert checked.returncode == 2, checked.stdout
    assert said in checked.stdout + checked.stderr


FITTED = """
from r1core import api


class Common:
    name, before, after = "common/common", (), ()
    fits_on_data, cross_record = {fits}, {crosses}

    def transform(self, examples):
        yield from examples

    def fingerprint(self):
        return "1"


@api.hookimpl
def preprocess(ctx):
    return [Common()]
"""


@pytest.mark.parametrize(
    ("fits", "crosses", "said"),
    [(True, False, "fits_on_data under dp/units"), (False, True, "cross_record under dp/units"), (False, False, "")],
)
def test_a_transform_that_fits_on_or_mixes_private_rows_is_refused(
    ward: Path, fits: bool, crosses: bool, said: str
) -> None:
    # a folder each: one file that is rewritten within a second, at the same length, is read as it was compiled before
    file = ward / f"{fits}-{crosses}" / "common.py"
    file.parent.mkdir()
    file.write_text(FITTED.format(fits=fits, crosses=crosses), encoding="utf-8")
    checked = run(ward, "check", "--recipe", "my.toml", "--run", "runs/d", "--plugin", str(file))
    assert checked.returncode == (2 if said else 0), checked.stdout + checked.stderr
    assert said in checked.stdout


def test_the_noise_is_reckoned_beforehand(ward: Path) -> None:
    words = ("--units", "10000", "--batch-size", "64", "--steps", "471", "--delta", "3.98e-5")
    told = run(ward, "dp", "noise", *words, "--json")
    assert json.loads(told.stdout)["noise_multiplier"] == pytest.approx(0.631, abs=0.002)
