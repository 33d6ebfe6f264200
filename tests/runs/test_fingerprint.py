"""Stage fingerprints and their differences in words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from r1core.plugins.guard import guard
from r1core.runs.fingerprint import Fingerprint, diff, own_fingerprints, source_hash, stage_fingerprint
from r1core.workbench import STAGE_ROOMS

PLUGIN = {"name": "umls", "version": "0.1.0", "source_sha256": "aa", "distribution": "r1core-umls", "hooks": ["report"]}


def fingerprint(**changed: Any) -> Fingerprint:
    parts: dict[str, Any] = {
        "recipe_sections": {"train": {"steps": 50, "lr": 1e-3, "sites": ["q", "v"]}},
        "inputs": {"data/train.jsonl": "11"},
        "source": "ss",
        "plugins": [PLUGIN],
        "components": {"umls/link": "kb1"},
    }
    return stage_fingerprint("train", **(parts | changed))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"recipe_sections": {"train": {"steps": 60, "lr": 1e-3, "sites": ["q", "v"]}}},
            "recipe: train.steps was 50 and is 60",
        ),
        ({"recipe_sections": {"train": {"steps": 50, "lr": 1e-3}}}, 'recipe: train.sites is gone (was ["q","v"])'),
        ({"inputs": {"data/train.jsonl": "12"}}, "input data/train.jsonl changed"),
        ({"inputs": {}}, "input data/train.jsonl is gone"),
        ({"source": "tt"}, "the source of r1core changed"),
        ({"plugins": [PLUGIN | {"version": "0.2.0"}]}, "plugin umls was 0.1.0 and is 0.2.0"),
        ({"plugins": [PLUGIN | {"source_sha256": "bb"}]}, "the source of plugin umls changed"),
        ({"plugins": []}, "plugin umls is gone"),
        ({"components": {"umls/link": "kb2"}}, "component umls/link changed"),
    ],
)
def test_each_dependency_changes_it_and_is_named(changed: dict[str, Any], reason: str) -> None:
    assert fingerprint(**changed).digest != fingerprint().digest
    assert diff(fingerprint(), fingerprint(**changed)) == [reason]


def test_the_order_of_keys_and_plugins_does_not_count() -> None:
    other = PLUGIN | {"name": "rules"}
    sections = {"train": {"sites": ["q", "v"], "lr": 1e-3, "steps": 50}}
    first = fingerprint(plugins=[PLUGIN, other])
    second = fingerprint(plugins=[other, PLUGIN], recipe_sections=sections)
    assert first.digest == second.digest
    assert diff(first, second) == []
    assert Fingerprint.from_json(first.to_json()).digest == first.digest


class Part:
    """A component that states what it is given; nothing, where that is None."""

    def __init__(self, name: str, own: str | None) -> None:
        self.name = name
        if own is not None:
            self.fingerprint = lambda: own


def test_components_state_what_they_depend_on_and_a_metric_may_have_nothing_to_state() -> None:
    silent, stated = (guard("p", "metric", Part(f"p/{own}", own), Counter()) for own in (None, "1"))
    assert own_fingerprints([silent, stated, None, Part("p/link", "kb")]) == {"p/1": "1", "p/link": "kb"}


@pytest.mark.parametrize("changed", [("2", "b"), ("a", "2"), ("b", "a")])
def test_components_of_one_name_hide_none_of_each_others_changes(changed: tuple[str, str]) -> None:
    def stated(*owns: str) -> dict[str, str]:
        return own_fingerprints([Part("p/drugs", own) for own in owns])

    assert diff(fingerprint(components=stated("a", "b")), fingerprint(components=stated(*changed))) == [
        "component p/drugs changed"
    ]


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        fingerprint(plugins=[PLUGIN, PLUGIN])
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(recipe_sections={"train": {"lr": float("nan")}})


def test_the_source_hash_can_be_narrowed_to_rooms() -> None:
    assert source_hash() != source_hash("runs") != source_hash("api")


def test_a_room_that_does_not_exist_is_an_error_and_every_stage_names_real_ones() -> None:
    with pytest.raises(ValueError, match=r"no such room of r1core: api\.py"):
        source_hash("data", "api.py")
    for rooms in STAGE_ROOMS.values():
        assert len(source_hash(*rooms)) == 64
