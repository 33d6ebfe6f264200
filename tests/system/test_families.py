"""Tiny random models of published families through the whole of `r1core`, with and without reasoning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1core.testing.families import FAMILIES, family_dir

from .conftest import COMPLAINTS, Desk, notes

RECIPE = """\
[run]
name = "own"

[model]
path = "model"
precision = "fp32"
threads = 1

[data]
max_tokens = 160

[data.files]
train = "notes.jsonl"

[data.columns]
text = "Description"
answer = "Clinic"

[train]
batch_size = 4
steps = 3

[evaluate]
baselines = false
max_new_tokens = 4

[generate]
max_new_tokens = 6
"""
REASONS = ("--set", 'data.columns.reasoning="Why"', "--set", "evaluate.reasoning_tokens=5")
REASONS = (*REASONS, "--set", "generate.reasoning_tokens=8")


def furnished(folder: Path, family: str, template: str = "") -> Desk:
    folder.mkdir(parents=True, exist_ok=True)
    family_dir(folder / "model", family, template=template)
    desk = Desk(folder)
    header, *lines = (line.split(",") for line in notes(40).splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    for row in rows:
        row["Why"] = f"It is {row['Description']}."
    desk.write("notes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    desk.write("own.toml", RECIPE)
    return desk


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_adapted_asked_and_verified(family: str, tmp_path: Path) -> None:
    desk = furnished(tmp_path / "desk", family)
    reasons = FAMILIES[family][0] != "plain"
    words = ("--recipe", "own.toml", *(REASONS if reasons else ()))
    assert "nothing stands in the way" in desk("check", *words).out
    done = desk("adapt", *words)
    assert "adapted+constrained" in done.out
    assert not done.err
    told = desk("generate", "runs/own", "--prompt", "a cough", "--json").json()
    assert ("reasoning" in told) == reasons
    assert "</think>" not in told["text"]
    label = desk("generate", "runs/own", "--prompt", "a cough", "--choices", "--json").json()
    assert label["text"] in COMPLAINTS
    if FAMILIES[family][0] == "open":
        assert label["reasoning"]
    for line in (desk.folder / "runs/own/evaluation/adapted.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["gold"] in COMPLAINTS
        assert "think>" not in row["text"]
    assert "as recorded" in desk("verify", "runs/own").out
    desk("merge", "runs/own", "--out", "merged")
    assert (desk.folder / "merged/config.json").is_file()


@pytest.mark.slow
def test_deepseek_v3_is_trained_under_a_privacy_policy_by_its_rows_own_gradients(tmp_path: Path) -> None:
    pytest.importorskip("r1core_dp")
    desk = furnished(tmp_path / "desk", "deepseek_v3")
    words = ["--recipe", "own.toml", "--set", 'run.plugins=["dp"]', "--set", 'train.packing="padded"']
    words += ["--set", 'data.columns.group="Patient"', "--set", 'data.choices=["heart","lungs","skin"]']
    words += ["--set", 'plugins.dp.dataset_id="families"', "--set", "plugins.dp.epsilon=8.0"]
    words += ["--set", f'plugins.dp.ledger="{tmp_path / "ledger"}"']
    assert "privacy" in desk("train", *words).out


def test_reasoning_that_is_asked_for_in_vain_is_told_before_anything_runs(tmp_path: Path) -> None:
    desk = furnished(tmp_path / "desk", "qwen2")
    said = desk("check", "--recipe", "own.toml", *REASONS, code=2).said
    for key in ("generate.reasoning_tokens = 8", "evaluate.reasoning_tokens = 5", "data.columns.reasoning"):
        assert key in said
    assert said.count("has no <think> block") == 3


def test_what_latent_attention_and_labels_do_not_go_with_is_told(tmp_path: Path) -> None:
    desk = furnished(tmp_path / "desk", "deepseek_v3")
    pool = ("--set", 'train.objective="multitask"', "--set", 'data.columns.task="Clinic"')
    said = desk("check", "--recipe", "own.toml", *pool, code=2).said
    assert "a pool of task adapters on kv_b_proj" in said
    others = ("--set", 'adapter.targets=["q_a_proj", "o_proj"]')
    assert "kv_b_proj" not in desk("check", "--recipe", "own.toml", *pool, *others, code=None).said
    labels = (*REASONS, "--set", 'train.softmax="labels"')
    said = desk("check", "--recipe", "own.toml", *labels, code=2).said
    assert 'fix: set train.reasoning = "context"' in said
    desk("check", "--recipe", "own.toml", *labels, "--set", 'train.reasoning="context"')


def test_rows_with_reasoning_and_answers_without_are_pointed_out(tmp_path: Path) -> None:
    desk = furnished(tmp_path / "desk", "qwen3")
    said = desk("check", "--recipe", "own.toml", *REASONS[:2]).said
    assert "evaluate.reasoning_tokens = 0: answers come without the reasoning that the rows have" in said
    desk.write("notes.jsonl", '{"Description": "cough", "Clinic": "<think>why</think>lungs"}\n' * 3)
    assert "a label with a </think> block before it" in desk("check", "--recipe", "own.toml", code=2).said
    desk.write("notes.jsonl", '{"Description": "cough", "Clinic": "<think>half"}\n' * 3)
    said = desk("check", "--recipe", "own.toml", code=2).said
    assert "its <think> is never closed" in said
