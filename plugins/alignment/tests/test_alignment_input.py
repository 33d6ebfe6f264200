"""What is read: exact numbers, days, the SEC's JSON, CSV; and one clear line for each kind of bad input."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import r1core_alignment as alignment
from hypothesis import given
from hypothesis import strategies as st
from r1core_alignment.exact import as_floats, as_numbers, column_of_amounts

from r1core.api import UserError

Table = Callable[..., pd.DataFrame]
COMPANY: dict[str, Any] = {
    "cik": 320,
    "entityName": "Acme",
    "facts": {
        "us-gaap": {
            "Assets": {"units": {"USD": [
                {"end": "2022-03-31", "val": 9007199254740993, "accn": "a-1", "fy": 2022, "fp": "Q1", "form": "10-Q",
                 "filed": "2022-04-20", "frame": "CY2022Q1I"}]}},
            "Revenues": {"units": {"USD": [
                {"start": "2022-01-01", "end": "2022-03-31", "val": 0.1, "accn": "a-1", "fy": 2022, "fp": "Q1",
                 "form": "10-Q", "filed": "2022-04-20"}]}},
        },
        "ifrs-full": {"Assets": {"units": {"EUR": [
            {"end": "2022-03-31", "val": 5, "accn": "a-1", "fy": 2022, "fp": "Q1", "form": "20-F",
             "filed": "2022-04-20"}]}}},
    },
}  # fmt: skip


def test_companyfacts_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = json.dumps(COMPANY)
    (tmp_path / "plain.json").write_text(text, encoding="utf-8")
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(text.encode()))
    told = alignment.read_companyfacts(COMPANY).frame()
    for name in ("plain.json", "packed.json.gz"):
        pd.testing.assert_frame_equal(alignment.read(tmp_path / name).frame(), told)
    assert told["entity"].unique().tolist() == ["CIK0000000320"]
    assert dict(zip(told["concept"], told["value"], strict=True)) == {
        "ifrs-full:Assets": 5, "us-gaap:Assets": 9007199254740993, "us-gaap:Revenues": Decimal("0.1"),
    }  # fmt: skip
    assert told.loc[told["concept"] == "us-gaap:Revenues", "start"].item() == pd.Timestamp("2022-01-01")
    assert told.loc[told["concept"] == "us-gaap:Assets", "start"].isna().item()


def test_a_concept_is_named_with_or_without_its_taxonomy_and_an_entity_by_its_cik() -> None:
    facts = alignment.read_companyfacts(COMPANY)
    assert len(facts.select("Assets")) == 2
    assert len(facts.select("us-gaap:Assets", 320)) == 1
    assert len(facts.select(None, "CIK0000000320")) == 3
    with pytest.raises(UserError, match="concept 'Asset'") as caught:
        facts.select("Asset")
    assert "Assets" in caught.value.fix
    with pytest.raises(UserError, match="entity 'CIK0000000321'"):
        facts.select(entities=321)


def test_csv_and_frame_give_the_same_facts(tmp_path: Path, table: Table) -> None:
    frame = table("2022-01-01..2022-03-31 10.50 2022-04-20\n2022-03-31 9007199254740993 2022-04-20")
    frame.to_csv(tmp_path / "facts.csv", index=False)
    frame.rename(columns={"value": "val", "accession": "accn"}).to_csv(tmp_path / "sec.csv.gz", index=False)
    told = alignment.from_frame(frame).frame()
    for name in ("facts.csv", "sec.csv.gz"):
        pd.testing.assert_frame_equal(alignment.read(tmp_path / name).frame(), told)
    dated = frame.assign(
        filed=pd.to_datetime(frame["filed"]), end=[datetime.date.fromisoformat(e) for e in frame["end"]]
    )
    pd.testing.assert_frame_equal(alignment.from_frame(dated).frame(), told)


def test_columns_of_every_kind_that_pandas_has_are_read(tmp_path: Path, table: Table) -> None:
    frame = table("2022-01-01..2022-03-31 10 2022-04-20\n2022-03-31 12 2022-04-20")
    told = alignment.from_frame(frame).frame()
    days = {name: pd.to_datetime(frame[name]) for name in ("start", "end", "filed")}
    kinds = [
        frame.assign(**days, value=[10, 12], entity=frame["entity"].astype("category"), index=7).set_index("index"),
        frame.assign(value=pd.array([10, 12], dtype="Int64"), concept=frame["concept"].astype("string")),
        frame.assign(
            value=np.array([10, 12], np.float32), **{name: one.astype("datetime64[s]") for name, one in days.items()}
        ),
        frame.assign(
            **{name: one.dt.to_period("D").dt.to_timestamp() for name, one in days.items()}, value=[Decimal(10), 12]
        ),
    ]
    for one in kinds:
        pd.testing.assert_frame_equal(alignment.from_frame(one).frame(), told)
    (tmp_path / "excel.csv").write_text("\ufeff" + frame.to_csv(index=False), encoding="utf-8")
    pd.testing.assert_frame_equal(alignment.read(tmp_path / "excel.csv").frame(), told)


def test_several_sources_are_one(table: Table) -> None:
    parts = [alignment.from_frame(table(f"2022-03-31 {n} 2022-04-2{n}\n2032-01-01 1 2022-01-01")) for n in (1, 2, 3)]
    every = alignment.concat(parts)
    assert every.frame()["value"].tolist() == [1, 2, 3]
    assert len(every.left_out) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filed": None}, r"row 1, column 'filed': it is empty; without a filing date"),
        ({"end": ""}, r"row 1, column 'end': it is empty"),
        ({"accession": None}, r"row 1, column 'accession': it is empty"),
        ({"form": " "}, r"row 1, column 'form': it is empty"),
        ({"entity": float("nan")}, r"row 1, column 'entity': it is empty"),
        ({"filed": "20 April"}, r"row 1, column 'filed': found '20 April'"),
        ({"filed": "2022-04"}, r"row 1, column 'filed': found '2022-04'"),
        ({"filed": "2022-02-30"}, r"row 1, column 'filed': found '2022-02-30', which is no day of the calendar"),
        ({"filed": "today"}, r"row 1, column 'filed'"),
        ({"filed": 20220420}, r"row 1, column 'filed': found 20220420"),
        ({"filed": "2022-04-20T16:05:00"}, r"row 1, column 'filed'"),
        ({"filed": pd.Timestamp("2022-04-20 16:05")}, r"row 1, column 'filed': .* with a time of day or a zone"),
        ({"filed": pd.Timestamp("2022-04-20", tz="UTC")}, r"row 1, column 'filed': .* with a time of day or a zone"),
        ({"start": "2022-04-01"}, r"row 1: the period starts behind its end"),
        ({"value": None}, r"row 1, column 'value': found None, expected a finite number"),
        ({"value": "1,000"}, r"row 1, column 'value': found '1,000'"),
        ({"value": "nan"}, r"row 1, column 'value': found 'nan'"),
        ({"value": float("inf")}, r"row 1, column 'value': found inf"),
        ({"value": True}, r"row 1, column 'value': found True"),
    ],
)
def test_a_bad_row_is_named_with_its_column(table: Table, change: dict[str, Any], said: str) -> None:
    frame = table("2022-01-01..2022-03-31 5 2022-04-20\n2022-01-01..2022-03-31 6 2022-05-20").astype(object)
    for name, value in change.items():
        frame.loc[1, name] = value
    with pytest.raises(UserError, match=said) as caught:
        alignment.from_frame(frame)
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_whole_columns_with_times_or_zones_are_refused(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20")
    day = pd.to_datetime(frame["filed"])
    with pytest.raises(UserError, match="has a time zone"):
        alignment.from_frame(frame.assign(filed=day.dt.tz_localize("America/New_York")))
    with pytest.raises(UserError, match="a time of day"):
        alignment.from_frame(frame.assign(filed=day + pd.Timedelta(hours=16)))


def test_tables_and_files_that_are_none_are_refused(tmp_path: Path, table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20")
    with pytest.raises(UserError, match="no column 'filed', 'form'"):
        alignment.from_frame(frame.drop(columns=["filed", "form"]))
    with pytest.raises(UserError, match="no rows"):
        alignment.from_frame(frame.iloc[:0])
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    (tmp_path / "bad.json.gz").write_bytes(b"\x1f\x8bnothing")
    (tmp_path / "bad.csv").write_text('a\n"b', encoding="utf-8")
    for name in ("bad.json", "bad.json.gz", "bad.csv", "none.csv", "none.json", "facts.xml"):
        with pytest.raises(UserError, match=name):
            alignment.read(tmp_path / name)
    frame.assign(filed="soon").to_csv(tmp_path / "facts.csv", index=False)
    with pytest.raises(UserError, match=r"facts\.csv: row 2, column 'filed'"):
        alignment.read(tmp_path / "facts.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no object with the key 'facts'"),
        ({"cik": "abc", "facts": {"us-gaap": {}}}, "'cik' is 'abc'"),
        ({"cik": 1, "facts": {"us-gaap": {}}}, "there are no facts"),
        ({"cik": 1, "facts": {"us-gaap": {"Assets": {"units": {"USD": {}}}}}}, "us-gaap/Assets/USD: found no list"),
        ({"cik": 1, "facts": {"us-gaap": {"Assets": {"units": {"USD": [{"val": 1, "end": "2022-03-31", "accn": "a",
          "form": "10-Q"}]}}}}}, r"us-gaap/Assets/USD\[0\]: the fact has no 'filed'"),
        ({"cik": 1, "facts": {"us-gaap": {"Assets": {"units": {"USD": [{"val": None, "end": "2022-03-31", "accn": "a",
          "form": "10-Q", "filed": "2022-04-20"}]}}}}}, r"us-gaap/Assets/USD\[0\], column 'value': found None"),
    ],
)  # fmt: skip
def test_json_that_is_no_companyfacts_is_refused(content: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        alignment.read_companyfacts(content)


def test_numbers_over_2_to_the_53_stay_exact(table: Table) -> None:
    big = 2**53
    frame = table(f"2022-01-01..2022-09-30 {big + 1} 2022-10-20\n2022-01-01..2022-12-31 {3 * big + 8} 2023-02-20")
    aligned = alignment.align(frame.astype({"value": object}), grid=["2023-03-01"], measures=["quarter", "year"])
    assert aligned.values.iloc[0].tolist() == [2 * big + 7, 3 * big + 8]
    assert aligned.long(exact=True)["value"].tolist() == [2 * big + 7, 3 * big + 8]
    with pytest.raises(UserError, match="no float64"):
        aligned.long()
    assert aligned.audit().ok


def test_differences_of_decimals_are_exact(table: Table) -> None:
    frame = table("2022-01-01..2022-09-30 0.1 2022-10-20\n2022-01-01..2022-12-31 0.30 2023-02-20")
    for given_as in (frame, frame.astype({"value": float})):
        aligned = alignment.align(given_as, grid=["2023-03-01"], measures="quarter")
        assert aligned.values.iloc[0, 0] == 0.2  # 0.3 - 0.1 is 0.19999999999999998 in floats
        assert aligned.provenance.iloc[0, 0].value == Decimal("0.2")


def test_what_has_too_many_digits_is_left_out_and_told(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20\n2022-06-30 1000000000000000000 2022-07-20\n2022-09-30 6 2022-10-20")
    long = frame.assign(value=["0.1234567890123456789", "-1e18", "1e-120"])
    for value in (frame["value"], frame["value"].astype(object).map(int), frame["value"].astype(float)):
        facts = alignment.from_frame(frame.assign(value=value))
        assert facts.frame()["value"].tolist() == [5, 6]
        assert facts.left_out["reason"].tolist() == ["its value has more digits than are kept exactly"]
    assert len(alignment.from_frame(long).left_out) == 3
    assert len(alignment.from_frame(frame.assign(value=np.array([5, 2**59, 2**59 - 1]))).left_out) == 1


def test_sums_up_to_the_last_bit(table: Table) -> None:
    most = 2**59 - 1
    lines = [f"2022-01-01..2022-0{month}-30 {-most} 2022-11-20" for month in (6, 9)]
    frame = table(
        "\n".join([f"2022-01-01..2022-03-31 {most} 2022-11-20", *lines, f"2022-01-01..2022-12-31 {most} 2023-02-20"])
    )
    aligned = alignment.align(frame, grid=["2022-12-01", "2023-03-01"], measures=["quarter", "ttm"])
    assert aligned.values.iloc[1].tolist() == [2 * most, most]
    assert aligned.audit().ok


def test_differences_that_no_integer_holds_are_refused(table: Table) -> None:
    frame = table("2022-01-01..2022-09-30 0.000001234567 2022-10-20\n2022-01-01..2022-12-31 123456789012 2023-02-20")
    with pytest.raises(UserError, match="us-gaap:Revenues: its amounts differ by more digits"):
        alignment.align(frame, grid=["2023-03-01"], measures="quarter")


@given(
    st.lists(
        st.floats(-1e15, 1e15, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-20), min_size=1, max_size=20
    )
)
def test_a_float_is_the_decimal_that_it_prints_as(values: list[float]) -> None:
    mantissa, scale = column_of_amounts(pd.Series(values, dtype=float), str)
    assert [Decimal(int(m)).scaleb(-int(s)) for m, s in zip(mantissa, scale, strict=True)] == [
        Decimal(repr(value)) for value in values
    ]
    np.testing.assert_array_equal(as_floats(mantissa, scale), values)


@given(st.lists(st.decimals(-(10**10), 10**10, places=4), min_size=1, max_size=20))
def test_decimals_and_their_texts_are_kept(values: list[Decimal]) -> None:
    for column in (values, [str(value) for value in values]):
        mantissa, scale = column_of_amounts(pd.Series(column, dtype=object), str)
        assert as_numbers(mantissa, scale).tolist() == values


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"grid": "monthly"}, "unknown grid 'monthly'"),
        ({"grid": []}, "are none, or do not ascend"),
        ({"grid": ["2022-05-02", "2022-05-01"]}, "do not ascend"),
        ({"grid": ["2022-05-01", "2022-05-01"]}, "do not ascend"),
        ({"grid": pd.date_range("2022-05-01", periods=2, freq="12h")}, "date 1 of the grid.*a time of day"),
        ({"grid": pd.date_range("2022-05-01", periods=2, tz="UTC")}, "has a time zone"),
        ({"start": "2023-01-01", "end": "2022-01-01"}, "before it"),
        ({"start": "2022-05-01", "end": "2022-05-02"}, "no date of the grid"),
        ({"start": "May"}, "the start of the grid: found 'May'"),
        ({"start": "2022-05-01T10:00"}, "the start of the grid"),
        ({"measures": "month"}, "unknown measure 'month'"),
        ({"measures": []}, "no measure"),
        ({"max_age": -1}, "max_age is -1"),
        ({"concepts": "Profit"}, "no fact has the concept 'Profit'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(table: Table, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        alignment.align(table("2022-03-31 5 2022-04-20"), **how)
    assert caught.value.fix


def test_nothing_to_align_is_said(table: Table) -> None:
    with pytest.raises(UserError, match="no fact is left"):
        alignment.align(table("2032-03-31 5 2022-04-20"))
