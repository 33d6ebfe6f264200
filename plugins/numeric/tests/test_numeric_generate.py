"""One question with a table from the command line: the result is forced, and the answer tells what it rests on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from r1core.testing.typist import typist

TABLE = [["(in thousands)", "2019", "2018"], ["Sales", "$1,496.5", "$1,202.9"], ["Other", "(44.1)", "56.7"]]
CHANGE = {"op": "percent_change", "args": [{"cell": [1, 1]}, {"cell": [1, 2]}]}
RECIPE = """
[run]
name = "asked"
plugins = ["numeric"]

[model]
path = "{model}"

[data]
kind = "text"

[data.files]
train = "rows.jsonl"

[plugins.numeric]
table = "prompt"
results = "answer"
"""


@pytest.fixture
def home(tmp_path: Path, r1core_tiny_model: Path) -> Path:
    (tmp_path / "my.toml").write_text(RECIPE.format(model=r1core_tiny_model))
    (tmp_path / "rows.jsonl").write_text('{"text": "?", "answer": "!"}\n')
    return tmp_path


def generate(home: Path, fields: object, *more: str) -> tuple[int, str, str]:
    (home / "fields.json").write_text(json.dumps(fields))
    asked = ("generate", "--recipe", "my.toml", "--base", "--prompt", "By how much did sales grow?")
    done = typist()(*asked, "--fields", "fields.json", *more, cwd=home, env=os.environ)
    return done.returncode, done.stdout, done.stderr


def test_an_untrained_model_states_the_result_of_the_program_and_where_it_comes_from(home: Path) -> None:
    code, out, err = generate(home, {"table": TABLE, "program": CHANGE}, "--json", "--max-new-tokens", "80")
    assert code == 0, err
    said = json.loads(out)
    assert said["text"].strip() == "24.41%"  # 100 x (1,496.5 - 1,202.9) / 1,202.9 = 24.407...
    told = said["provenance"]["numeric/provenance"]
    assert [(n["text"], n["sources"]) for n in told["numbers"]] == [("24.41%", ["result result: 24.41%"])]
    (program,) = told["programs"]
    assert [slot["place"] for slot in program["slots"]] == [
        "row 1, column 1 (Sales / 2019)",
        "row 1, column 2 (Sales / 2018)",
    ]
    assert program["value"] == "2936/12029"
    assert "24.41" not in json.dumps(said["audit"])


def test_a_program_that_abstains_says_why(home: Path) -> None:
    lost = {"op": "percent_change", "args": [{"cell": [1, 1]}, {"cell": [7, 2]}]}
    code, out, err = generate(home, {"table": TABLE, "program": lost}, "--json", "--max-new-tokens", "4")
    assert code in (0, 2), err
    (program,) = json.loads(out)["provenance"]["numeric/provenance"]["programs"]
    assert program["abstained"] == "the cell at row 7, column 2 holds no quantities"


def test_fields_that_are_no_object_are_told_in_one_line(home: Path) -> None:
    code, _, err = generate(home, [1])
    assert code == 2
    assert "fields.json: expected a JSON object, found list" in err
    assert 'for instance {"table"' in err
