"""What `make demo-finance` types on the files of `examples/finance`, prices aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r1core.testing.typist import typist

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "finance"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("numeric", "run", "growth.json", "--table", "sales.csv"), "growth = 24.4%"),
        (("align", "facts.csv", "--measure", "ttm", "--grid", "quarter"), "45,700,000"),  # 44.2 + 10.7 - 9.2 million
        (("align", "facts.csv", "--measure", "year,ttm", "--grid", "day", "--audit"), "rows with look-ahead: 0;"),
    ],
)
def test_the_examples_give_what_a_reader_reckons(words: tuple[str, ...], said: str) -> None:
    done = typist()(*words, cwd=EXAMPLES, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_a_restatement_counts_from_the_day_after_its_filing() -> None:
    words = ("align", "facts.csv", "--measure", "year", "--grid", "day", "--start", "2024-06-17", "--end", "2024-06-19")
    done = typist()(*words, cwd=EXAMPLES, env=os.environ)
    rows = [line.split()[:4:3] for line in done.stdout.splitlines() if line.startswith("2024-06")]
    assert rows == [["2024-06-17", "46,900,000"], ["2024-06-18", "46,900,000"], ["2024-06-19", "44,200,000"]]
