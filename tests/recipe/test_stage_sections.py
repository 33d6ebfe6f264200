"""Which keys of a recipe a stage's fingerprint covers."""

from __future__ import annotations

import pytest

from r1core.recipe.schema import STAGE_SECTIONS, Recipe, read_by

BASE = {"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}}
EVERY = {"prepare", "train", "evaluate", "report"}


def stages_changed(table: str, key: str, value: object) -> set[str]:
    before = Recipe.model_validate(BASE).model_dump(mode="json")
    changed = {**BASE, table: {**BASE.get(table, {}), key: value}}
    after = Recipe.model_validate(changed).model_dump(mode="json")
    assert before != after
    return {stage for stage in STAGE_SECTIONS if read_by(stage, before) != read_by(stage, after)}


@pytest.mark.parametrize(
    ("table", "key", "value", "stages"),
    [
        ("run", "name", "other", {"report"}),
        ("run", "seed", 1, EVERY),
        ("model", "hub", "c/d", {"prepare", "train", "evaluate"}),
        ("model", "revision", "v2", {"prepare", "train", "evaluate"}),
        ("model", "template", "plain", {"prepare", "train", "evaluate"}),
        ("model", "threads", 2, {"train", "evaluate"}),
        ("model", "processes", 2, {"train", "evaluate"}),
        ("model", "precision", "bf16", {"train", "evaluate"}),
        ("model", "attention", "eager", {"train", "evaluate"}),
        ("data", "max_rows", 5, {"prepare"}),  # what it changes in the data reaches the others as data
        ("data", "prompt", "Q: {text}", {"prepare"}),
        ("data", "choices", ["a", "b"], {"prepare", "evaluate"}),
        ("adapter", "rank", 8, {"train"}),
        ("adapter", "gelu_scale", 0.5, {"train"}),
        ("strategy", "preset", "guide", {"train"}),
        ("strategy", "untie", True, {"train"}),
        ("train", "learning_rate", 1e-4, {"train"}),
        ("train", "packing", "none", {"train", "evaluate"}),
        ("train", "checkpoint_every", 7, set()),
        ("train", "keep_checkpoints", 1, set()),
        ("train", "objective", "multitask", {"prepare", "train", "evaluate"}),
        ("pool", "prepend", False, {"prepare", "train", "evaluate"}),  # a task token more in each row
        ("pool", "routing", "hard", {"train"}),
        ("curriculum", "difficulty", "loss", {"train"}),
        ("evaluate", "batch_size", 8, {"evaluate", "report"}),
        ("generate", "max_new_tokens", 8, {"evaluate", "report"}),
        ("generate", "temperature", 0.5, {"report"}),
        ("report", "title", "T", {"report"}),
        ("report", "demo_prompt", "P", {"evaluate", "report"}),
    ],
)
def test_a_key_reaches_the_stages_that_read_it(table: str, key: str, value: object, stages: set[str]) -> None:
    assert stages_changed(table, key, value) == stages


def test_a_key_that_nobody_has_thought_of_counts() -> None:
    for stage, tables in STAGE_SECTIONS.items():
        for reads in tables:
            if not reads.only:
                assert reads.of({"new": 1}) == {"new": 1}, stage


def test_keys_that_are_left_out_exist() -> None:
    known = Recipe.model_validate(BASE).model_dump(mode="json")
    for tables in STAGE_SECTIONS.values():
        for reads in tables:
            assert {*reads.but, *reads.only} <= set(known[reads.table]), reads
