"""Reading returns and prices: what is wrong is named by file and line, and nothing is guessed."""

from __future__ import annotations

import datetime
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from r1core_var.csv_series import read_returns, read_table

from r1core.api import UserError


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str, name: str = "returns.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def rows(values: list[str], head: str = "date,return", step: int = 1) -> str:
    start = datetime.date(2024, 1, 1)
    lines = (f"{start + datetime.timedelta(days=step * at)},{value}" for at, value in enumerate(values))
    return "\n".join([head, *lines]) + "\n"


def test_returns_with_dates(file) -> None:
    path = file(rows(["0.01", "-0.02", "0.005"]))
    data = read_returns(path)
    assert data.returns.tolist() == [0.01, -0.02, 0.005]
    assert data.dates == (datetime.date(2024, 1, 1), datetime.date(2024, 1, 2), datetime.date(2024, 1, 3))
    assert (data.name, data.dropped) == ("return", 0)
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_prices_become_simple_returns_of_the_later_day(file) -> None:
    data = read_returns(file(rows(["100", "110", "99"], "date,close")), kind="prices")
    np.testing.assert_allclose(data.returns, [0.1, -0.1])
    assert data.dates == (datetime.date(2024, 1, 2), datetime.date(2024, 1, 3))


def test_percent_compressed_files_and_a_column_of_several(file, tmp_path: Path) -> None:
    assert read_returns(file(rows(["1", "-2"])), percent=True).returns.tolist() == [0.01, -0.02]
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(b"day,a,b\n03/01/2024,0.1,0.2\n04/01/2024,-0.1,-0.2\n"))
    data = read_returns(packed, column="b", date_format="%d/%m/%Y")
    assert data.returns.tolist() == [0.2, -0.2]
    assert data.dates is not None
    assert data.dates[0] == datetime.date(2024, 1, 3)
    names, table, dropped = read_table(packed)
    assert (names, dropped) == (("a", "b"), 0)
    assert table.tolist() == [[0.1, 0.2], [-0.1, -0.2]]


def test_an_empty_cell_is_refused_with_its_line_and_dropped_on_request(file) -> None:
    path = file(rows(["0.01", "", "-0.02", "NaN"]))
    with pytest.raises(UserError, match=r"returns\.csv:3: column 'return' is empty"):
        read_returns(path)
    data = read_returns(path, nan_policy="drop")
    assert data.returns.tolist() == [0.01, -0.02]
    assert data.dropped == 2
    assert data.dates is not None
    assert data.dates[1] == datetime.date(2024, 1, 3)


@pytest.mark.parametrize(
    ("text", "options", "says", "fix"),
    [
        (rows(["0.01", "1,5"]).replace("1,5", '"1,5"'), {}, r":3: column 'return' holds '1,5'", "decimal point"),
        (rows(["0.01", "1.5%"]), {}, r":3: .*'1.5%'", "--percent"),
        (rows(["0.01", "inf"]), {}, r":3: .*'inf'", "decimal point"),
        (rows([str(100 + at) for at in range(30)]), {}, "no value of column 'return' is negative", "--prices"),
        (rows(["1.2", "-0.9"] * 20), {}, "standard deviation of 105% a day", "--percent"),
        (rows(["0.01"] * 30 + ["-1.5"] + ["0.01"] * 300), {}, r":32: column 'return' holds -1.5", "fractions"),
        (rows(["100", "-3"]), {"kind": "prices"}, r":3: .*price -3", "--prices"),
        (rows(["100", "25"] * 3), {"kind": "prices"}, r":4: the price moves by \+300%", "splits"),
        ("date,r\n2024-01-02,0.1\n2024-01-02,-0.1\n", {}, r":3: 2024-01-02 stands after 2024-01-02", "oldest first"),
        ("date,r\n01/02/2024,0.1\n02/02/2024,-0.1\n", {}, r":2: column 'date' holds '01/02/2024'", "--date-format"),
        ("date,a,b\n2024-01-01,1,2\n2024-01-02,-1,2\n", {}, "columns of numbers: a, b", "--column"),
        ("date,a\n2024-01-01,1\n2024-01-02,2\n", {"column": "z"}, "no column 'z'", "use one of date, a"),
        ("2024,0.1\n2025,-0.2\n", {}, r":1: found numbers", "add a line"),
        ("date,fund\n", {"kind": "prices", "percent": True}, "prices have no percent", "one of the two"),
        ("2024-01-02,0.1\n2024-01-03,-0.2\n", {}, r":1: found numbers", "add a line"),
        ("date,r\n2024-01-02,0,0031\n2024-01-03,-0,0120\n", {}, r":2: found 3 cells under a header of 2", "decimal"),
        ("date,r,r\n2024-01-02,0.1,0.2\n", {"column": "r"}, r":1: 'r' is the name of several columns", "once"),
        (rows(["0.01", "-0.01"], "date,Loss"), {}, "column 'Loss' is called a loss", "sign"),
        (rows(["0.01", "-0.01"] * 15, step=7), {}, "rows lie 7 days apart", "daily"),
        ("date;r\n2024-01-01;0,1\n", {}, "parted by ';'", "commas"),
        ("date\tr\n2024-01-01\t0.1\n", {}, r"parted by '\\t'", "commas"),
        ("date,r\n", {}, "found 1 lines", "CSV"),
        (rows(["0.01"]), {}, "found 1 rows", "longer"),
        ("date,r\n2024-01-01,x\n2024-01-02,y\n", {}, "columns of numbers: none", "--column"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_fix(file, text: str, options, says: str, fix: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_returns(file(text), **options)
    assert fix in caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_returns(path)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_compressed_file_that_is_broken(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "returns.csv.gz"
    whole = gzip.compress(rows([f"{(-1) ** at * at / 1e4}" for at in range(500)]).encode())
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole[:200] + b"xxxx" + whole[204:])
    with pytest.raises(UserError, match=r"returns\.csv\.gz: cannot be read"):
        read_returns(path)


def test_holidays_and_a_few_long_gaps_are_still_days(file) -> None:
    path = file(rows(["0.01", "-0.01"] * 15, step=3))
    assert len(read_returns(path).returns) == 30


def test_a_table_looks_at_the_wanted_columns_only(file) -> None:
    path = file("date,a,b,note\n2024-01-01,100,,x\n2024-01-02,110,50,\n2024-01-03,,50,\n2024-01-04,99,11,\n")
    names, table, dropped = read_table(path, columns=["a"], kind="prices", nan_policy="drop")
    assert (names, dropped) == (("a",), 1)
    np.testing.assert_allclose(table[:, 0], [0.1, -0.1])
    with pytest.raises(UserError, match=r":5: the price moves by -78%"):
        read_table(path, columns=["b"], kind="prices", nan_policy="drop")
    with pytest.raises(UserError, match=r":2: column 'b' is empty"):
        read_table(path)
    with pytest.raises(UserError, match="no column c"):
        read_table(path, columns=["a", "c"])
    with pytest.raises(UserError, match="found 1 rows"):
        read_table(file("a,b\n0.1,0.2\n"))
