"""A curriculum through the command line: a column of one's own file, a kill in the middle, values that are wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import Desk, furnish, notes

OWN = ("--recipe", "own.toml")
STAGES = "[{until=2,simple=1.0},{until=6,simple=0.7},{simple=0.0}]"
LONG = (*OWN, "--set", "train.epochs=8", "--set", f"curriculum.stages={STAGES}")
BY_LOSS = (*LONG, "--set", "curriculum.difficulty=loss")
BY_LEVEL = (*LONG, "--set", "curriculum.difficulty=column", "--set", "curriculum.column=Level")


def graded(desk: Desk, **odd: str) -> Desk:
    """The same records with a column `Level`, 1 to 3 by the row's number; `odd` replaces some of them."""
    head, *lines = notes().splitlines()
    levels = [odd.get(f"n{number}", str(number % 3 + 1)) for number in range(len(lines))]
    rows = [f"{line},{level}" for line, level in zip(lines, levels, strict=True)]
    desk.write("notes.csv", "\n".join([f"{head},Level", *rows]) + "\n")
    return desk


def lines_of(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (desk.folder / "runs/own/metrics.jsonl").read_text().splitlines()]


def test_a_column_of_a_csv_file(desk: Desk) -> None:
    done = graded(desk)("train", *BY_LEVEL)
    kept = json.loads((desk.folder / "runs/own/data/difficulty.json").read_text())
    assert kept["simple_up_to"] in (1.0, 2.0)
    for row in kept["rows"]:
        assert row["difficulty"] == int(row["id"][1:]) % 3 + 1
        assert (row["class"] == "simple") == (row["difficulty"] <= kept["simple_up_to"])
    assert f"curriculum: {kept['simple']} of 48 rows are simple" in done.out
    assert "steps 25 to 72: 70 % simple" in done.out
    assert [line["curriculum_stage"] for line in lines_of(desk)] == [1] * 24 + [2] * 48 + [3] * 24
    desk("verify", "runs/own")
    assert "train: skipped" in desk("train", *BY_LEVEL).out
    off = desk("train", *BY_LEVEL, "--set", 'curriculum.difficulty=""')
    assert 'train: recipe: curriculum.difficulty was "column" and is ""' in off.out
    assert not (desk.folder / "runs/own/data/difficulty.json").exists()
    desk("verify", "runs/own")


@pytest.mark.parametrize("value", ["hard", *(pytest.param(v, marks=pytest.mark.slow) for v in ("", "NaN"))])
def test_a_value_that_is_no_number_is_told_before_a_weight_is_loaded(value: str, desk: Desk) -> None:
    (desk.folder / "tiny/model.safetensors").write_bytes(b"garbage")
    place = ["n0", "n59"]
    graded(desk, **dict.fromkeys(place, value))
    refused = desk("train", *BY_LEVEL, code=2)
    errors = [line for line in refused.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"row 'n0': column 'Level' is '{value}', expected a finite number" in errors[0]
    assert "notes.csv:2: " in errors[0]


def test_check_finds_a_bad_value_in_its_sample(desk: Desk) -> None:
    graded(desk, n0="hard")
    [problem] = desk("check", *BY_LEVEL, "--json", code=2).json()["problems"]
    assert "notes.csv:2: row 'n0': column 'Level' is 'hard'" in problem["found"]
    [warning] = desk("check", *OWN, "--set", "curriculum.difficulty=loss", "--json").json()["problems"]
    assert warning["found"] == "the training ends in stage 1 of 3, after 1 epochs"


@pytest.mark.slow
def test_a_killed_curriculum_by_loss_ends_with_the_same_bits(tmp_path: Path, tiny: Path) -> None:
    whole, desk = furnish(tmp_path / "whole", tiny), furnish(tmp_path / "desk", tiny)
    said = "curriculum: measuring the base model's loss on 48 rows"
    assert said in whole("train", *BY_LOSS).out
    stopped = desk.stopped(signal.SIGKILL, "runs/own", 33, "train", *BY_LOSS)
    assert stopped.code == -signal.SIGKILL
    assert not (desk.folder / "runs/own/adapter").exists()
    kept = (desk.folder / "runs/own/data/difficulty.json").read_bytes()
    done = desk("train", *BY_LOSS)
    assert "continuing from step" in done.out
    assert said not in done.out
    assert (desk.folder / "runs/own/data/difficulty.json").read_bytes() == kept
    ends = [(one.folder / "runs/own/adapter/adapter_model.safetensors").read_bytes() for one in (desk, whole)]
    assert ends[0] == ends[1]
    keys = ("step", "loss", "curriculum_stage")
    assert [[line[key] for key in keys] for line in lines_of(desk)] == [
        [line[key] for key in keys] for line in lines_of(whole)
    ]
