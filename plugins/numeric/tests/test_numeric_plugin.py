"""Spans with features, metrics, and the verb, as the core and a user call them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_numeric.annotator import NUMBER, WIDTH, features
from r1core_numeric.cli import numeric
from r1core_numeric.config import NumericConfig
from r1core_numeric.plugin import NumericPlugin
from r1core_numeric.reader import read

from r1core import api

CONTEXT = api.Context("", None, seed=0)


def test_numbers_of_the_prompt_become_spans_and_answers_are_left_alone() -> None:
    (annotator,) = NumericPlugin().preprocess(CONTEXT)
    messages = (api.Message("system", "Note 5."), api.Message("user", "Sales of $5?"), api.Message("assistant", "$7"))
    made = annotator(api.Example("x", messages, "t"))  # type: ignore[operator]
    assert [(s.part, s.start, s.end, s.value.text, s.value.kind) for s in made.spans] == [
        (0, 0, 6, "Note 5", "label"), (1, 9, 11, "$5", "quantity"),
    ]  # fmt: skip
    assert annotator(made) == made  # type: ignore[operator]


def test_the_codec_keeps_every_digit() -> None:
    for number in read("$(123,456,789,012,345,678,901.50) million, 5 %, 1 234, Note 5, 2019"):
        assert NUMBER.decode(json.loads(json.dumps(NUMBER.encode(number)))) == number


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789.,-()$%km €", max_size=20))
def test_features_are_finite_and_of_one_width(text: str) -> None:
    for number in read(text):
        found = features(number)
        assert len(found) == WIDTH
        assert all(map(math.isfinite, found))


def test_features_tell_sign_magnitude_unit_and_digits() -> None:
    loss, percent = read("$(1.25) million and 5 %")
    one, other = features(loss), features(percent)
    assert one[0] == other[0] == 1.0  # quantities
    assert (one[7], other[8]) == (1.0, 1.0)  # money, percent
    assert one[12] == -1.0
    assert one[13] == pytest.approx(math.log10(1_250_000) / 12)
    assert [round(figure * 9) for figure in one[18:22]] == [1, 2, 5, 0]


def test_metrics_count_exactness_and_lack_of_provenance() -> None:
    exact, unsupported = NumericPlugin().metric(CONTEXT)
    asked = [api.Example("x", (api.Message("user", "Sales of $1.2 million, 5 % more."),), "t")] * 2
    gold = ["$1.2 million", "5 %"]
    assert exact(["It was $1,200,000", "500 bp"], gold, asked) == 1.0
    assert exact(["It was 1.2 million", "5"], gold, asked) == 0.0
    assert exact(["$1.2 million, 5 %", "none"], gold, asked) == 0.0
    assert unsupported(["$1.2 million and 7 and 8", "5 %"], gold, asked) == 1.0
    assert (exact.higher_is_better, unsupported.higher_is_better) == (True, False)


@pytest.mark.parametrize("wrong", [{"currency": "XXX"}, {"currency": "usd"}, {"results": "last"}, {"x": 1}])
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        NumericConfig.model_validate(wrong)


# -- the verb --------------------------------------------------------------------------------------------------------


def verb(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(numeric, [str(a) for a in arguments], input=stdin)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sales.csv"
    path.write_text('(in thousands),2019,2018\nSales,"$1,496.5","$1,202.9"\nOther,(44.1),56.7\n', encoding="utf-8")
    return path


def program(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_read_prints_slots_with_values_and_places(table: Path) -> None:
    done = verb("read", table)
    assert done.exit_code == 0
    assert "2\t'$1,496.5'\t1496500 USD\trow 1, column 1 (Sales / 2019) (scale from the header)" in done.output
    rows = json.loads(verb("read", "-", "--json", stdin="Loss of $(1.2) million").output)
    assert [(r["text"], r["value"], r["unit"], r["start"]) for r in rows] == [("$(1.2) million", "-1200000", "USD", 8)]


def test_run_shows_the_result_with_its_provenance(tmp_path: Path, table: Path) -> None:
    change = {"op": "percent_change", "args": [{"slot": 2}, {"slot": 3}]}
    done = verb("run", program(tmp_path, change), "--table", table)
    assert done.exit_code == 0
    assert done.output.startswith("result = 24.41%  (exact: 2936/12029 percent)\n  [2] '$1,496.5' at row 1, column 1")
    told = json.loads(verb("run", program(tmp_path, [change]), "--table", table, "--json").output)
    assert [step["op"] for step in told[0]["steps"]] == ["percent_change"]


def test_run_exits_with_1_where_a_program_abstains(tmp_path: Path, table: Path) -> None:
    done = verb("run", program(tmp_path, {"op": "add", "args": [{"slot": 2}, {"slot": 99}]}), "--table", table)
    assert (done.exit_code, done.output) == (1, "result: abstains: slot 99 does not exist: 6 numbers were read\n")


def test_check_finds_numbers_without_provenance(tmp_path: Path, table: Path) -> None:
    good = verb("check", "-", "--against", table, stdin="Sales were $1.4965 million in 2019.")
    assert (good.exit_code, good.output.splitlines()[-1]) == (0, "2 numbers, 0 without provenance")
    bad = verb("check", "-", "--against", table, stdin="Sales rose by 24.41% to $1.5 million.")
    assert bad.exit_code == 1
    assert "14-20\t'24.41%'\tNO PROVENANCE" in bad.output
    change = program(tmp_path, {"op": "percent_change", "args": [{"slot": 2}, {"slot": 3}]})
    told = verb("check", "-", "--against", table, "--program", change, "--json", stdin="by 24.41%")
    assert json.loads(told.output)["unsupported"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("read", "nowhere.txt"), "nowhere.txt: there is no such file"),
        (("run", "-"), "-: no JSON"),
        (("run", "-", "--table", "a.csv", "--table", "b.csv"), "found 2 tables"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(api.UserError, match=told):
        raise verb(*arguments, stdin="{").exception  # type: ignore[misc]
