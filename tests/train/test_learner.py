"""A run trained in rounds through `api.Host`: what a federated verb gets, and what other verbs make of its result."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from r1core.api import UserError
from r1core.host import CoreHost
from r1core.pipeline import run_to
from r1core.runs.directory import RunDirectory
from r1core.runs.verify import verify
from r1core.selection import Selection, of_run
from r1core.workbench import open_bench

RECIPE = """
[run]
name = "ward"
plugins = [{plugins}]

[model]
path = "{model}"
precision = "fp32"
threads = 1

[data]
choices = ["Heart.", "Skin."]

[data.files]
train = "ward.csv"

[data.columns]
id = "id"
group = "patient"

[adapter]
rank = 4

[train]
steps = 3
batch_size = 6
packing = "padded"
warmup_fraction = 0.0
learning_rate = 0.01

[evaluate]
baselines = false
max_new_tokens = 4
{more}
"""
DP = '[plugins.dp]\ndataset_id = "ward"\nledger = "{folder}/ledgers"\n'
Write = Callable[..., Path]


class Silent:
    def line(self, text: str) -> None: ...

    def progress(self, *told: object) -> None: ...


@pytest.fixture
def recipe(tmp_path: Path, r1core_tiny_model: Path) -> Write:
    with (tmp_path / "ward.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("id", "patient", "text", "answer"))
        for n in range(120):
            table.writerow((f"r{n}", f"p{n}", ("a rash", "chest pain")[n % 2] + f" {n}", ("Skin.", "Heart.")[n % 2]))

    def write(plugins: str = "", more: str = "") -> Path:
        path = tmp_path / "my.toml"
        made = RECIPE.format(plugins=plugins, model=r1core_tiny_model, more=more.format(folder=tmp_path))
        path.write_text(made, encoding="utf-8")
        return path

    return write


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def rounds(
    path: Path, run: Path, count: int, *, proximal: float = 0.0, sets: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """So many rounds of one learner with nobody else, finished."""
    with CoreHost().learner(path, run=run, sets=sets) as learner:
        assert learner.begin(count) is None
        for number in range(1, count + 1):
            learner.fit(number, proximal)
        learner.finish("rounds.json", {"rounds": count})
        return learner.weights()


def test_one_round_is_the_training_that_the_recipe_states(recipe: Write, tmp_path: Path) -> None:
    path = recipe()
    run_to(open_bench(Selection(recipe=path, run=tmp_path / "plain", sets=("model.processes=1",))), "train", Silent())
    ours = rounds(path, tmp_path / "rounds", 1, sets=("model.processes=1",))
    (plain,) = (tmp_path / "plain" / "adapter").glob("adapter_model.safetensors")
    for name, value in load_file(plain).items():
        np.testing.assert_array_equal(ours[name], value)


def test_the_schedule_goes_over_all_rounds_and_the_rows_go_on(recipe: Write, tmp_path: Path) -> None:
    rounds(recipe(), tmp_path / "run", 4)
    told = lines(tmp_path / "run")
    assert [line["step"] for line in told] == list(range(1, 13))
    for line in told:
        wanted = 0.01 * 0.5 * (1 + math.cos(math.pi * (line["step"] - 2) / 11)) if line["step"] > 1 else 0.01
        assert line["learning_rate"] == pytest.approx(wanted)
    assert len({line["tokens"] for line in told}) > 1  # not the same rows in every round


def test_a_proximal_term_holds_the_weights_back(recipe: Write, tmp_path: Path) -> None:
    path, moved = recipe(), []
    for mu in (0.0, 10.0, 1000.0):
        with CoreHost().learner(path, run=tmp_path / f"mu{mu}") as learner:
            learner.begin(1)
            start = learner.weights()
            learner.fit(1, mu)
            end = learner.weights()
        moved.append(math.sqrt(sum(float(np.square(end[n] - start[n]).sum()) for n in start)))
        penalties = [line["penalty"] for line in lines(tmp_path / f"mu{mu}")] if mu else [0.0]
        assert penalties[0] == 0.0  # it is anchored where the round begins
        assert (max(penalties) > 0) == (mu > 0)
    assert moved[0] > moved[1] > moved[2] > 0


def test_weights_come_and_go_exactly_and_others_are_refused(recipe: Write, tmp_path: Path) -> None:
    with CoreHost().learner(recipe(), run=tmp_path / "run") as learner:
        learner.begin(2)
        assert learner.rows == len((tmp_path / "run/data/train.jsonl").read_text().splitlines())
        other = {
            name: np.random.default_rng(0).normal(size=v.shape).astype("f4") for name, v in learner.weights().items()
        }
        learner.load(other)
        for name, value in learner.weights().items():
            np.testing.assert_array_equal(value, other[name])
        first = next(iter(other))
        for broken, said in (
            ({n: v for n, v in other.items() if n != first}, "missing"),
            ({**other, "more": np.zeros(1, "f4")}, "left over"),
            ({**other, first: np.zeros((1, 1), "f4")}, "expected"),
            ({**other, first: np.full_like(other[first], np.nan)}, "not finite"),
        ):
            with pytest.raises(UserError, match=said):
                learner.load(broken)


def test_what_was_saved_is_taken_up_and_another_recipe_begins_anew(recipe: Write, tmp_path: Path) -> None:
    path, run = recipe(), tmp_path / "run"
    with CoreHost().learner(path, run=run) as learner:
        learner.begin(2)
        learner.fit(1)
        learner.save({"done": 1})
        kept = learner.weights()
    with CoreHost().learner(path, run=run) as learner:
        assert learner.begin(2) == {"done": 1}
        for name, value in learner.weights().items():
            np.testing.assert_array_equal(value, kept[name])
    with CoreHost().learner(path, run=run, sets=("train.batch_size=4",)) as learner:
        assert learner.begin(2) is None


def test_the_other_verbs_take_the_result_and_train_nothing(recipe: Write, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CoreHost().learner(recipe(), run=run) as learner:
        learner.begin(2)
        for number in (1, 2):
            learner.fit(number)
        measured = learner.accuracy("test")
        learner.finish("rounds.json", {"rounds": 2})
    results = run_to(open_bench(of_run(run)), "evaluate", Silent())
    assert [result.status for result in results] == ["skip", "skip", "done"]
    assert [str(one) for one in verify(RunDirectory(run, create=False)) if one.severity == "error"] == []
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    (choice,) = (r for r in summary if r["system"].startswith("adapted+") and r["metric"] == "accuracy")
    assert list(measured.values()) == [pytest.approx(choice["value"])]


def test_no_other_verb_trains_over_what_rounds_made(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CoreHost().learner(recipe(), run=tmp_path / "run") as learner:
        learner.begin(1)
        learner.fit(1)
        learner.finish("rounds.json", {})
    made = (tmp_path / "run/adapter/adapter_model.safetensors").read_bytes()
    monkeypatch.setattr("r1core.workbench.source_hash", lambda *rooms: "of a newer r1core")
    run_to(open_bench(of_run(tmp_path / "run")), "evaluate", Silent())
    assert (tmp_path / "run/adapter/adapter_model.safetensors").read_bytes() == made
    with pytest.raises(UserError, match=r"rounds with others made its adapter, .*train\.steps was 3 and is 4"):
        run_to(open_bench(of_run(tmp_path / "run", sets=("train.steps=4",))), "evaluate", Silent())
    assert (tmp_path / "run/adapter/adapter_model.safetensors").read_bytes() == made
    run_to(open_bench(of_run(tmp_path / "run")), "evaluate", Silent())  # the recipe is what it was


def test_a_policy_accounts_for_all_rounds_as_one_training(recipe: Write, tmp_path: Path) -> None:
    pytest.importorskip("opacus", reason="the plugin dp checks PRV by Opacus")
    path, run = recipe('"dp"', DP), tmp_path / "run"
    with CoreHost().learner(path, run=run) as learner:
        assert learner.private
        learner.begin(2)
        learner.fit(1, 0.5)
        learner.save({"done": 1})
        half = json.loads((run / "privacy" / "card.json").read_text())
    with CoreHost().learner(path, run=run) as learner:  # as after a kill between the rounds
        assert learner.begin(2) == {"done": 1}
        learner.fit(2, 0.5)
        learner.save({"done": 2})
        with pytest.raises(UserError, match="all 6 steps"):
            learner.fit(3)
    card = json.loads((run / "privacy" / "card.json").read_text())
    assert (half["steps_counted"], card["steps_counted"]) == (3, 6)
    assert half["epsilon"] < card["epsilon"] <= 3.0
    ledger = (tmp_path / "ledgers" / "ward.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "step" for line in ledger) == 6
    assert all({"loss", "tokens"}.isdisjoint(line) for line in lines(run))


def test_a_policy_with_a_proximal_term_is_held_back_too(recipe: Write, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "examples" / "hooks" / "privacy.py"  # clips, and adds no noise
    path, moved = recipe(), []
    for mu in (0.0, 1000.0):
        with CoreHost().learner(path, run=tmp_path / f"mu{mu}", plugins=[file]) as learner:
            learner.begin(1)
            start = learner.weights()
            learner.fit(1, mu)
            end = learner.weights()
        moved.append(math.sqrt(sum(float(np.square(end[n] - start[n]).sum()) for n in start)))
    assert moved[0] > moved[1] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('curriculum.difficulty="loss"', "curriculum.difficulty"),
        ('strategy.norms.mode="full"', "strategy.norms.mode"),
    ],
)
def test_what_does_not_go_with_rounds_is_refused(recipe: Write, tmp_path: Path, change: str, said: str) -> None:
    with (
        CoreHost().learner(recipe(), run=tmp_path / "run", sets=(change,)) as learner,
        pytest.raises(UserError, match=said),
    ):
        learner.begin(2)
