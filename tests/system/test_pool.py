"""Several tasks in one file, a pool of adapters over them, a task added later: through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from .conftest import COMPLAINTS, Desk

DRUGS = {"aspirin": "bleeding", "metformin": "sugar", "statin": "lipids"}
RECIPE = """\
[run]
name = "two"

[model]
path = "tiny"
precision = "fp32"
threads = 1

[data]
max_tokens = 128

[data.files]
train = "two.csv"

[data.columns]
text = "Text"
answer = "Answer"
task = "Kind"
group = "Patient"

[[data.tasks]]
name = "drug"
kind = "text"
prompt = "What does it change? {text}"

[train]
objective = "multitask"
batch_size = 8
steps = 6
learning_rate = 0.02

[evaluate]
baselines = false
max_new_tokens = 4

[generate]
max_new_tokens = 6
"""


def records(*tasks: str, rows: int = 80) -> str:
    """Made-up records, the tasks in turn."""
    rng, lines = random.Random(0), ["Text,Answer,Kind,Patient"]
    for number in range(rows):
        task = tasks[number % len(tasks)]
        known = DRUGS if task == "drug" else {word: clinic for clinic, words in COMPLAINTS.items() for word in words}
        word = rng.choice(list(known))
        lines.append(f"{word} on day {number},{known[word]},{task},p{number}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def two(desk: Desk) -> Desk:
    desk.write("two.csv", records("clinic", "drug"))
    desk.write("two.toml", RECIPE)
    return desk


@pytest.mark.slow
def test_two_tasks_from_one_file_to_the_answer_and_a_third_added(two: Desk) -> None:
    done = two("adapt", "--recipe", "two.toml")
    run = two.folder / "runs" / "two"
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert {(row["task"], row["metric"]) for row in summary if row["system"] == "adapted"} >= {
        ("clinic", "accuracy"), ("drug", "exact_match"),
    }  # fmt: skip
    assert "clinic  accuracy" in done.out
    card = json.loads((run / "data" / "card.json").read_text())
    assert card["task"] == "clinic, drug"
    assert card["splits"]["train"]["tasks"]["clinic"]["labels"].keys() == COMPLAINTS.keys()
    report = (run / "report.html").read_text()
    assert "clinic: adapted model, labels only" in report
    assert "drug: adapted model" in report
    # Asked: the task has to be named, and named as it is called.
    ask = ("generate", "runs/two", "--prompt", "chest pain")
    assert "this run has 2 tasks, and none was named" in two(*ask, code=2).err
    assert "did you mean 'clinic'?" in two(*ask, "--task", "clinik", code=2).err
    answer = two(*ask, "--task", "clinic").out
    assert "cannot be merged" in two("merge", "runs/two", code=2).err
    # A task added later leaves this answer as it is.
    two.write("two.csv", records("ward"))
    added = ("--recipe", "two.toml", "--set", "data.tasks=[]", "--set", 'run.name="three"')
    two("train", *added, "--set", 'pool.extends="runs/two"')
    ask = ("generate", "runs/three", "--prompt", "chest pain", "--task")
    assert two(*ask, "clinic").out == answer
    assert two(*ask, "ward", "--choices").out.strip() in COMPLAINTS
    assert "the label set of 'clinic' is not in this run's data" in two(*ask, "clinic", "--choices", code=2).err
    # The pool that was extended is an input: changed by hand, it is refused.
    weights = run / "adapter" / "r1core_adapter.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    assert "r1core_adapter.safetensors: found" in two("train", *added, "--set", 'pool.extends="runs/two"', code=2).err


def test_one_lora_may_serve_all_tasks(two: Desk) -> None:
    two("evaluate", "--recipe", "two.toml", "--set", 'train.objective="sft"')
    assert (two.folder / "runs" / "two" / "adapter" / "adapter_config.json").is_file()
    ask = ("generate", "runs/two", "--prompt", "chest pain", "--choices")
    assert "none was named" in two(*ask, code=2).err
    assert two(*ask, "--task", "clinic").out.strip() in COMPLAINTS


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["pool.tasks=1"], "2 tasks: clinic, drug; expected at most pool.tasks = 1"),
        (['pool.routing="top_k"', "pool.top_k=3"], "pool.top_k = 3 of 2 adapters"),
        (['data.columns.task="Kid"'], "has no column 'Kid', only Text, Answer, Kind, Patient"),
        (['data.tasks=[{name="drugs"}]'], "train has no record of task 'drugs'"),
        (['data.tasks=[{name="drug"},{name="drug"}]'], "the task 'drug' stands there twice"),
        (['data.tasks=[{name="drug",prompt="What?"}]'], "no `{text}` in it"),
        (['adapter.kind="gelu_lora"'], 'adapter.kind = "gelu_lora" in a pool'),
        (["adapter.dropout=0.1"], "adapter.dropout = 0.1 in a pool"),
        (['train.compile="on"'], "whose layers change with the tasks"),
        (["strategy.norms.mode=\"full\""], 'strategy.norms.mode = "full" in a pool'),
        (['pool.extends="runs/none"'], "no pool of adapters here"),
        (['train.objective="sft"', 'pool.extends="runs/none"'], "which trains no pool"),
        (['report.demo_prompt="chest pain"'], "report.demo_task = ''"),
        (["pool.width=16"], "width = 16 for 10 tasks"),
    ],
)  # fmt: skip
def test_check_refuses_what_cannot_be_in_one_line(sets: list[str], said: str, two: Desk) -> None:
    words = [word for one in sets for word in ("--set", one)]
    done = two("check", "--recipe", "two.toml", *words, code=2)
    assert said in done.said, done.said
    assert [line for line in done.out.splitlines() if said in line]
    wrong = [line for line in done.said.splitlines() if "(fix:" in line]
    assert len(wrong) == 1, done.said


def test_a_task_is_not_trained_twice(two: Desk, tmp_path: Path) -> None:
    two("train", "--recipe", "two.toml")
    done = two("check", "--recipe", "two.toml", "--set", 'pool.extends="runs/two"', "--set", 'run.name="b"', code=2)
    assert "task 'clinic' is in the pool" in done.said
    other = two("check", "--recipe", "two.toml", "--set", 'pool.extends="runs/two"', "--set", "adapter.rank=8", code=2)
    assert "adapter.rank: rank 8, and the pool that is extended has 16" in other.said
