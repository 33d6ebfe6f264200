"""The summary's layout on disk, which other programs read."""

from __future__ import annotations

import json
import math

import pytest

from r1core.api import UserError
from r1core.evaluate import summary
from r1core.evaluate.metrics import Estimate
from r1core.evaluate.summary import Comparison, Row

ROWS = [
    summary.row("specialty", "tfidf", "accuracy", Estimate(0.645, 0.02, 1630, 199)),
    summary.row("specialty", "adapted+constrained", "accuracy", Estimate(0.785, 0.011, 1630, 199)),
]


def test_the_file_is_a_list_of_rows_with_six_keys(tmp_path):
    summary.write_summary(tmp_path / "summary.json", ROWS)
    assert json.loads((tmp_path / "summary.json").read_text())[0] == {
        "task": "specialty", "system": "tfidf", "metric": "accuracy", "value": 0.645, "se": 0.02, "n": 1630,
    }  # fmt: skip
    assert summary.read_summary(tmp_path / "summary.json") == ROWS


def test_an_unknown_error_is_null_in_the_file_and_nan_in_memory(tmp_path):
    summary.write_summary(tmp_path / "summary.json", [Row("t", "base", "accuracy", 1.0, math.nan, 1)])
    assert json.loads((tmp_path / "summary.json").read_text())[0]["se"] is None
    assert math.isnan(summary.read_summary(tmp_path / "summary.json")[0].se)


def test_comparisons_are_read_back(tmp_path):
    rows = [Comparison("specialty", "adapted", "tfidf", "accuracy", 0.14, 0.012, 1630)]
    summary.write_comparisons(tmp_path / "comparisons.json", rows)
    assert summary.read_comparisons(tmp_path / "comparisons.json") == rows


def test_rows_are_found_by_system_and_metric():
    assert summary.find(ROWS, "adapted+constrained", "accuracy") == ROWS[1]
    assert summary.find(ROWS, "adapted", "accuracy") is None
    assert summary.find(ROWS, "tfidf", "accuracy", task="other") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{]", "broken JSON"), ("{}", "expected a list, found dict"), ('[{"task": "t"}]', "entry 1: expected the keys")],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        summary.read_summary(tmp_path / "summary.json")
    assert "summary.json" in str(error.value)
