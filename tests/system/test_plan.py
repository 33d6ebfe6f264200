"""`r1core plan` as it is typed: on a run of one's own, on hardware that is not here, and with what cannot be."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from r1core.cli.plan import command

from .conftest import RECIPE, Desk

GUIDED = '\n[adapter]\nrank = 4\n[strategy]\npreset = "guide"\nuntie = true\n'


def test_a_plan_tells_what_the_training_of_the_same_recipe_builds(desk: Desk) -> None:
    desk.write("own.toml", RECIPE + GUIDED)
    told = desk("plan", "--recipe", "own.toml", "--json").json()
    desk("train", "--recipe", "own.toml", "--set", "train.steps=2")
    manifest = json.loads((desk.folder / "runs" / "own" / "manifest.json").read_text())
    assert told["trained"] == manifest["figures"]["trainable_parameters"]
    rows = manifest["figures"]["rows_train"]
    assert told["rows"]["number"] == rows
    card = json.loads((desk.folder / "runs" / "own" / "data" / "card.json").read_text())
    assert told["rows"]["length"] == pytest.approx(card["splits"]["train"]["tokens_mean"], rel=0.1)
    assert told["forecast"]["steps"] == -(-rows // 4)
    again = desk("plan", "runs/own").out
    assert re.search(r"^output +full +5e-05 +0.05 +([\d,]+) +\1$", again, re.MULTILINE)
    assert "weights of its own, a copy of the embedding's" in again
    assert "the guide's own figures" not in again


def test_json_has_what_a_program_reads(desk: Desk) -> None:
    desk.write("own.toml", RECIPE)
    told = desk("plan", "--recipe", "own.toml", "--json").json()
    assert told.keys() == {
        "model", "adapter", "table", "weights", "trained", "share", "rows", "forecast", "assumed", "notes",
    }  # fmt: skip
    assert [role["role"] for role in told["table"]][::8] == ["embeddings", "output"]
    assert told["table"][0].keys() == {"role", "mode", "learning_rate", "weight_decay", "base", "trained"}
    assert sum(role["trained"] for role in told["table"]) == told["trained"]
    forecast = told["forecast"]
    assert {"seconds", "cpu_seconds", "steps", "tokens", "workers", "memory", "fits", "there"} <= forecast.keys()
    assert forecast["fits"] is True
    parts = [value for key, value in forecast["memory"].items() if key not in ("total", "together")]
    assert sum(parts) == pytest.approx(forecast["memory"]["total"])
    gpus = desk("plan", "--recipe", "own.toml", "--json", "--hardware", "2xH100", "--samples", "500").json()
    assert gpus["rows"]["number"] == 500
    assert [claim["hours"] for claim in gpus["guide"]] == ["12-15", "24-30", "36-42"]


@pytest.mark.parametrize("method", ["lora", "ppo", "multitask"])
def test_hardware_that_is_not_here_without_any_recipe(method: str) -> None:
    words = ["--hardware", "4xA100-80G", "--samples", "100000", "--method", method]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert re.search(r"^time: training about [\d.]+ (min|h|days) on 4xA100-80G", done.output, re.MULTILINE)
    assert "assumed: no recipe: a Llama of 7 B weights" in done.output
    ours, _, guides = done.output.partition("the guide's own figures")
    assert not re.search(r"12-15|24-30|36-42", ours)
    for hours in ("12-15 h", "24-30 h", "36-42 h"):
        assert hours in guides
    [marked] = [line for line in guides.splitlines() if "forecast above" in line]
    assert marked.split()[0] == method
    assert ("does not train it" in ours) == (method == "ppo")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hardware", "4xA100-90G"), "did you mean A100-80G?"),
        (("--method", "pop"), "did you mean 'ppo'?"),
        (("--method", "ppo"), "add --hardware"),
        (("--set", 'strategy.output.mode="full"'), "strategy.untie = true"),
        (("--set", "model.path=nowhere"), "config.json"),
        (("--set", "model.hub=some/model"), "its safetensors are not on this machine"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_line(words: tuple[str, ...], said: str, desk: Desk) -> None:
    desk.write("own.toml", RECIPE)
    done = desk("plan", "--recipe", "own.toml", *words, code=2)
    assert said in done.err
    assert done.out == ""


def test_without_anything_to_plan_for_it_says_what_to_type(desk: Desk) -> None:
    assert "r1core plan medical" in desk("plan", code=2).err
    assert "none is named" in desk("plan", "--set", "train.steps=3", code=2).err
