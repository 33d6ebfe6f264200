"""Prices out of installed wheels, and the question about the next day, against the files read by other means."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import numpy as np
import pytest
from r1core_finance import direction, prices

from r1core.api import DatasetSource, UserError

pytest.importorskip("arch", reason="the prices are in the wheels arch and skfolio")


def lines(package: str, inside: str) -> list[list[str]]:
    text = gzip.decompress(prices.file_of(package, inside).read_bytes()).decode()
    return [line.split(",") for line in text.strip().splitlines()]


def test_indices_are_the_adjusted_closes_of_the_file() -> None:
    for series in prices.indices():
        rows = lines("arch", f"data/{series.name}/{series.name}.csv.gz")
        assert rows[0][5] == "Adj Close"
        assert series.closes == tuple(row[5] for row in rows[1:])
        assert len(series.dates) == 5031
        assert series.dates[0] == datetime.datetime.strptime(rows[1][0], "%m/%d/%Y").date()
        wanted = np.diff(np.array(series.closes, dtype=float)) / np.array(series.closes[:-1], dtype=float)
        assert np.allclose(series.returns(), wanted, rtol=0, atol=1e-15)


def test_twenty_stocks_over_one_calendar() -> None:
    found = prices.stocks()
    rows = lines("skfolio", "datasets/data/sp500_dataset.csv.gz")
    assert [one.name for one in found] == rows[0][1:]
    assert len(found) == 20
    assert {one.dates for one in found} == {found[0].dates}
    assert found[3].closes[:2] == (rows[1][4], rows[2][4])


def test_a_missing_wheel_is_told_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="skfolio: not installed") as refused:
        prices.stocks()
    assert refused.value.fix == "pip install --no-deps skfolio==1.12.0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Date,X\n2020-01-02,1.0\n2020-01-02,1.1\n", "do not ascend"),
        ("Date,X\n2020-01-02,-1.0\n", "is no price"),
        ("Date,X\n2020-01-02,nan\n", "is no price"),
        ("Date,X\nyesterday,1.0\n", "yesterday' is no date"),
        ("Date,X\n", "no rows"),
    ],
)
def test_a_file_that_is_not_as_expected_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(UserError, match=said):
        prices._iso(path)


def test_a_question_shows_the_days_before_and_nothing_of_the_day_that_is_asked_about() -> None:
    source = direction.Direction()
    assert isinstance(source, DatasetSource)
    series = prices.long_index()
    at = {day.isoformat(): place for place, day in enumerate(series.dates)}
    closes = np.array(series.closes, dtype=float)
    ends = []
    for split in ("train", "val", "test"):
        rows = list(source.read(split))
        ends.append((rows[0].id, rows[-1].id))
        for row in rows[:: len(rows) // 40]:
            day = at[row.id]
            shown = row.messages[0].content.split("first: ")[1].split("\n")[0].split()
            wanted = [100 * (closes[n] / closes[n - 1] - 1) for n in range(day - 5, day)]
            assert [float(one) for one in shown] == pytest.approx(wanted, abs=0.00501)
            assert row.as_of == series.dates[day - 1].isoformat() < row.id
            assert row.messages[1].content == ("up" if closes[day] > closes[day - 1] else "down")
    assert ends[0][1] < ends[1][0] <= ends[1][1] < ends[2][0]
