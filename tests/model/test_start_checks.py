"""What a start from data and a softmax over labels do not go together with, told before any weight is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1core.api import Task
from r1core.model import private_check
from r1core.model.strategy import labels_refusal, refusals
from r1core.recipe.schema import Recipe

PUBLIC = {"initial": "principal", "public_source": "ward/terms"}


def recipe(**tables: dict[str, Any]) -> Recipe:
    given = {"run": {"name": "x"}, "model": {"base": "b"}, "data": {"source": "ward/records"}, **tables}
    return Recipe.model_validate(given)


def keys(given: Recipe, directory: Path) -> list[str]:
    return [one.key for one in refusals(given, directory, None)]


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"adapter": {**PUBLIC, "public_texts": "terms.txt"}}, "adapter.public_texts"),
        ({"adapter": {"public_source": "ward/terms"}}, "adapter.public_source"),
        ({"adapter": {**PUBLIC, "kind": "gelu_lora"}}, "adapter.initial"),
        ({"adapter": PUBLIC, "train": {"objective": "multitask"}}, "adapter.initial"),
        ({"adapter": PUBLIC, "train": {"parallel": "fsdp2"}}, "adapter.initial"),
    ],
)
def test_what_a_start_from_data_does_not_go_with(tables: dict[str, Any], key: str, tmp_path: Path) -> None:
    assert key in keys(recipe(**tables), tmp_path)


def test_a_start_on_the_training_rows_is_for_runs_without_privacy(tmp_path: Path) -> None:
    assert keys(recipe(adapter={"initial": "principal"}), tmp_path) == []
    for adapter in ({"initial": "principal"}, {"initial": "principal", "public_source": "ward/records"}):
        said = [one for one in private_check.refusals(recipe(adapter=adapter), "dp/units") if "initial" in one.key]
        assert len(said) == 1
        assert "private rows" in said[0].found
    for adapter in (PUBLIC, {"initial": "principal", "public_texts": "terms.txt"}):
        assert not [one for one in private_check.refusals(recipe(adapter=adapter), "dp/units") if "initial" in one.key]


def test_a_softmax_over_labels_is_for_one_task_that_has_some() -> None:
    sorts, free = Task("sorts", choices=("a", "b")), Task("free")
    assert labels_refusal({"sorts": sorts}) is None
    assert "free text" in str(labels_refusal({"free": free}))
    assert "2 tasks" in str(labels_refusal({"sorts": sorts, "more": sorts}))
