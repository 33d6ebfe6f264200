"""What a start from data and a softmax over labels do not go together with, told before any weight is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from r1core.api import Task
from r1core.model import labels_check, start_check
from r1core.recipe.schema import Recipe

PUBLIC = {"initial": "principal", "public_source": "ward/terms"}


def recipe(**tables: dict[str, Any]) -> Recipe:
    given = {"run": {"name": "x"}, "model": {"base": "b"}, "data": {"source": "ward/records"}, **tables}
    return Recipe.model_validate(given)


def keys(given: Recipe, private: str | None = None) -> list[str]:
    return [one.key for one in start_check.refusals(given, private)]


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"adapter": {**PUBLIC, "public_texts": "terms.txt"}}, "adapter.public_texts"),
        ({"adapter": {"public_source": "ward/terms"}}, "adapter.public_source"),
        ({"adapter": {**PUBLIC, "kind": "gelu_lora"}}, "adapter.initial"),
        ({"adapter": PUBLIC, "train": {"objective": "multitask"}}, "adapter.initial"),
        ({"adapter": PUBLIC, "train": {"parallel": "fsdp2"}}, "adapter.initial"),
        ({"adapter": {"freeze_a": True, "kind": "gelu_lora"}}, "adapter.freeze_a"),
        ({"adapter": {"freeze_a": True}, "train": {"objective": "multitask"}}, "adapter.freeze_a"),
    ],
)
def test_what_a_start_from_data_does_not_go_with(tables: dict[str, Any], key: str) -> None:
    assert key in keys(recipe(**tables))


def test_a_start_on_the_training_rows_is_for_runs_without_privacy() -> None:
    assert keys(recipe(adapter={"initial": "principal"})) == []
    for adapter in ({"initial": "principal"}, {"initial": "principal", "public_source": "ward/records"}):
        said = list(start_check.refusals(recipe(adapter=adapter), "dp/units"))
        assert [one.key for one in said] == ["adapter.initial"]
        assert "private rows" in said[0].found
    own = recipe(data={"files": {"train": "ward.csv"}}, adapter={"initial": "principal", "public_texts": "./ward.csv"})
    assert keys(own, "dp/units") == ["adapter.initial"]
    for adapter in (PUBLIC, {"initial": "principal", "public_texts": "terms.txt"}):
        assert keys(recipe(adapter=adapter), "dp/units") == []


def test_a_softmax_over_labels_is_for_one_task_that_has_some() -> None:
    def said(*tasks: Task) -> list[str]:
        asked = recipe(train={"softmax": "labels"})
        return [one.found for one in labels_check.refusals(asked, {one.name: one for one in tasks})]

    sorts, free = Task("sorts", choices=("a", "b")), Task("free")
    assert said(sorts) == []
    assert "free text" in said(free)[0]
    assert "2 tasks" in said(sorts, Task("more", choices=("c",)))[0]
    assert list(labels_check.refusals(recipe(), {"free": free})) == []
