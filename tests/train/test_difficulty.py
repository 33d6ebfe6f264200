"""How difficult a row is: columns as users write them, plugins, and the base model's loss against a naive loop."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.api import PluginError, R1Error, UserError
from r1core.check import check
from r1core.data import codec
from r1core.data.prepare import prepare
from r1core.selection import Selection
from r1core.testing.tiny import tiny_model
from r1core.train import difficulty
from r1core.train.base_loss import base_losses
from r1core.train.curriculum import Classes
from r1core.workbench import Workbench, open_bench

PLUGIN = """
from r1core import api


class Words:
    name = "words/count"

    def __call__(self, example):
        return {0: float("nan"), 1: None}.get({number}, len(example.messages[-1].content))

    def fingerprint(self):
        return "1"


@api.hookimpl
def difficulty():
    return [Words()]
"""


@pytest.fixture
def opened(tmp_path: Path, r1core_tiny_model: Path) -> Any:
    """Opens a run on JSONL rows whose column `level` holds these values (... leaves it out)."""

    def opening(levels: Sequence[Any], table: str = 'difficulty = "column"\ncolumn = "level"', **plugin: str) -> Any:
        rows = [
            {"text": f"row {i}", "answer": "xy"[i % 2]} | ({} if v is ... else {"level": v})
            for i, v in enumerate(levels)
        ]
        lines = "\n".join(json.dumps(row) for row in rows)
        for name in ("train", "val", "test"):
            (tmp_path / f"{name}.jsonl").write_text(lines)
        (tmp_path / "my.toml").write_text(
            f'[run]\nname = "own"\n[model]\npath = "{r1core_tiny_model}"\n[train]\nepochs = 20\n[curriculum]\n{table}\n'
            '[data.files]\ntrain = "train.jsonl"\nval = "val.jsonl"\ntest = "test.jsonl"\n'
        )
        files = []
        for name, source in plugin.items():
            files.append(tmp_path / f"{name}.py")
            files[-1].write_text(source)
        return open_bench(Selection(recipe=tmp_path / "my.toml", run=tmp_path / "run", files=tuple(files)))

    return opening


def measured(bench: Workbench) -> list[float] | None:
    prepare(bench, lambda line: None)
    return difficulty.of_records(bench, codec.read(bench.run.split("train"), bench.chain.kinds))


def test_numbers_and_text_that_reads_as_one_count(opened: Any) -> None:
    assert measured(opened([3, "2.5", " 1e2 ", -4, "0", 7.25])) == [3, 2.5, 100, -4, 0, 7.25]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (..., "column 'level' is missing"),
        (None, "column 'level' is None"),
        ("", "column 'level' is ''"),
        ("hard", "column 'level' is 'hard'"),
        ("nan", "column 'level' is 'nan'"),
        ("inf", "column 'level' is 'inf'"),
        ("1_000", "column 'level' is '1_000'"),
        (True, "column 'level' is True"),
        ([1], "column 'level' is [1]"),
        (10**400, "column 'level' is 1000"),
    ],
)
def test_a_value_that_is_no_finite_number_names_row_and_file(
    value: Any, said: str, opened: Any, tmp_path: Path
) -> None:
    bench = opened([1, value, 2, value])
    with pytest.raises(UserError) as caught:
        measured(bench)
    told = str(caught.value)
    assert told.startswith(f"curriculum.column: {tmp_path / 'train.jsonl'}:2: row 'train.jsonl:2': {said}")
    assert told.endswith("expected a finite number (and 1 more of 4 rows)")
    [problem] = check(bench)[0]
    assert problem.where == f"{tmp_path / 'my.toml'}:9"
    assert problem.found == told
    assert problem.fix == "mend the value, or drop the row"


def test_a_column_that_no_row_has_names_those_that_there_are(opened: Any) -> None:
    bench = opened([1, 2], 'difficulty = "column"\ncolumn = "hardness"')
    with pytest.raises(UserError, match=r"no row has a column 'hardness', only .*level"):
        measured(bench)


def test_check_warns_of_stages_that_the_rows_put_out_of_reach(opened: Any) -> None:
    table = (
        'difficulty = "column"\ncolumn = "level"\nunit = "step"\nstages = [{ until = 30, simple = 1 }, { simple = 0 }]'
    )
    [warning] = check(opened([1, 2] * 8, table))[0]
    assert (warning.severity, warning.found) == ("warning", "the training ends in stage 1 of 2, after 20 steps")
    assert check(opened([1, 2] * 9, table))[0] == []


def test_a_plugins_measure(opened: Any) -> None:
    source = PLUGIN.replace("{number}", "9").replace("example.messages[-1].content", "example.fields['text']")
    bench = opened([1, 2], 'difficulty = "words/count"', words=source)
    assert measured(bench) == [5.0, 5.0]
    assert check(bench)[0] == []
    with pytest.raises(UserError, match=r"curriculum\.difficulty: no difficulty is called 'words/cuont'; did you mean"):
        _ = opened([1, 2], 'difficulty = "words/cuont"', words=source).difficulty


@pytest.mark.parametrize(("number", "shown"), [("0", "nan"), ("1", "None")])
def test_a_measure_that_gives_no_number_fails_closed_in_its_plugins_name(number: str, shown: str, opened: Any) -> None:
    bench = opened([1, 2], 'difficulty = "words/count"', words=PLUGIN.replace("{number}", number))
    said = f"plugin 'words' failed in hook 'difficulty': words/count on 'train.jsonl:1': returned {shown}, expected"
    with pytest.raises(PluginError, match=said):
        measured(bench)
    assert any(said in problem.found for problem in check(bench)[0])


def test_what_was_measured_is_read_again_by_the_same_training_only(opened: Any) -> None:
    bench, ids, losses = opened([1, 2, 3], 'difficulty = "loss"'), ["a", "b", "c"], [0.1 + 0.2, 1e-17, math.pi]
    assert measured(bench) is None
    asked: list[str] = []

    def measure(answer: Sequence[float] = losses) -> Sequence[float]:
        asked.append("once")
        return answer

    assert difficulty.kept_or(bench, ids, "digest", measure) == losses
    difficulty.write(bench, ids, losses, Classes([1], [0, 2], 1e-17), "digest")
    assert difficulty.kept_or(bench, ids, "digest", measure) == losses  # to the bit
    assert len(asked) == 1
    difficulty.kept_or(bench, ids, "another", measure)
    difficulty.kept_or(bench, [*ids[:2], "d"], "digest", measure)
    assert len(asked) == 3
    written = json.loads(bench.run.difficulty.read_text())
    assert written["measure"] == "loss of the base model, nats a token"
    assert [row["class"] for row in written["rows"]] == ["complex", "simple", "complex"]
    with pytest.raises(R1Error, match="the base model's loss on row 'b' is nan"):
        difficulty.kept_or(bench, ids, "another", lambda: [1.0, math.nan, 2.0])


@pytest.mark.parametrize(("together", "processes"), [(1, 1), (4, 1), (4, 2)])
def test_the_base_models_loss_is_that_of_the_naive_loop(tiny: ModuleType, together: int, processes: int) -> None:
    model, rows = tiny_model(), tiny.rows(11)
    found = base_losses(model, rows, tiny.KINDS, together=together, processes=processes)
    assert len(found) == 11
    for row, loss in zip(rows, found, strict=True):
        ids = torch.tensor([row.prompt + row.response])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row.response))
        assert loss == pytest.approx(float(expected), abs=1e-5)
