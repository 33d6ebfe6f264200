"""The audit finds what is planted, in tables and in the result's own arrays, and nothing where nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import r1core_alignment as alignment
from r1core_alignment.auditing import Finding

from r1core.api import UserError

Table = Callable[..., pd.DataFrame]
FACTS = """
2022-01-01..2022-03-31 10 2022-04-20 a-1
2022-01-01..2022-06-30 30 2022-07-20 a-2
2022-01-01..2022-09-30 60 2022-10-20 a-3
2022-01-01..2022-12-31 100 2023-02-20 a-4 10-K
2022-01-01..2022-03-31 11 2023-04-20 a-5
2023-01-01..2023-03-31 15 2023-04-20 a-5
"""


@pytest.fixture
def facts(table: Table) -> alignment.Facts:
    return alignment.from_frame(table(FACTS))


@pytest.fixture
def long(facts: alignment.Facts) -> pd.DataFrame:
    return alignment.align(facts, grid="month", measures=["quarter", "year", "ttm"]).long(exact=True)


def found(long: pd.DataFrame, facts: alignment.Facts, **how: int) -> list[Finding]:
    settings = alignment.Settings(**how) if how else None
    return list(alignment.audit(long, facts, settings=settings).findings)


def at(long: pd.DataFrame, date: str, measure: str) -> int:
    (row,) = np.flatnonzero((long["date"] == date) & (long["measure"] == measure))
    return int(row)


def test_nothing_is_found_where_nothing_is(long: pd.DataFrame, facts: alignment.Facts) -> None:
    report = alignment.audit(long, facts)
    assert report.ok
    assert (report.rows, report.look_ahead) == (len(long), 0)
    assert report.cells == long["date"].nunique() * long["measure"].nunique()
    assert str(report).startswith("rows with look-ahead: 0;")


def test_a_row_moved_to_its_own_filing_date_looks_ahead(long: pd.DataFrame, facts: alignment.Facts) -> None:
    row = at(long, "2022-04-30", "quarter")
    long.loc[row, "date"] = pd.Timestamp("2022-04-20")
    report = alignment.audit(long, facts)
    assert report.look_ahead == 1
    assert {one.kind for one in report.findings if one.date == "2022-04-20"} == {"look_ahead", "unexpected"}
    long.loc[row, "date"] = pd.Timestamp("2022-04-21")  # one day later it is known
    assert alignment.audit(long, facts).look_ahead == 0


def test_a_whole_row_of_the_future_looks_ahead(long: pd.DataFrame, facts: alignment.Facts) -> None:
    then, now = at(long, "2023-02-28", "quarter"), at(long, "2023-01-31", "quarter")
    columns = [name for name in long.columns if name != "date"]
    long.loc[now, columns] = long.loc[then, columns]
    assert "look_ahead" in {one.kind for one in found(long, facts)}


def test_a_value_of_the_future_under_an_old_filing_looks_ahead(long: pd.DataFrame, facts: alignment.Facts) -> None:
    long.loc[at(long, "2023-01-31", "quarter"), "value"] = 40  # the fourth quarter, filed in February
    (one,) = found(long, facts)
    assert (one.kind, one.found, one.expected) == ("look_ahead", "40", "30")


def test_a_source_with_a_forged_filing_date_looks_ahead(long: pd.DataFrame, facts: alignment.Facts) -> None:
    row = at(long, "2023-01-31", "quarter")
    then = at(long, "2023-02-28", "quarter")
    long.loc[row, "value"] = 40
    for name in ("sources", "filed", "first_filed"):
        said = long.loc[then, name]
        forged = said.replace("2023-02-20", "2022-12-20") if isinstance(said, str) else pd.Timestamp("2022-12-20")
        long.loc[row, name] = forged
    kinds = {one.kind for one in found(long, facts)}
    assert "look_ahead" in kinds  # the facts say when it was filed, not the table


def test_an_older_value_than_the_newest_known_is_found(long: pd.DataFrame, facts: alignment.Facts) -> None:
    columns = [name for name in long.columns if name != "date"]
    long.loc[at(long, "2023-02-28", "quarter"), columns] = long.loc[at(long, "2023-01-31", "quarter"), columns]
    assert {one.kind for one in found(long, facts)} == {"differs"}


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("accession", "a-9"), ("form", "10-Q/A"), ("rule", "reported"), ("start", pd.Timestamp("2022-10-02")),
        ("filed", pd.Timestamp("2022-02-20")), ("first_filed", pd.Timestamp("2022-02-20")),
    ],
)  # fmt: skip
def test_every_column_of_the_provenance_counts(
    long: pd.DataFrame, facts: alignment.Facts, name: str, forged: object
) -> None:
    long.loc[at(long, "2023-02-28", "quarter"), name] = forged
    (one,) = found(long, facts)
    assert one.kind == "differs"
    assert one.found.startswith(name)


def test_a_source_that_nobody_filed_is_found(long: pd.DataFrame, facts: alignment.Facts) -> None:
    row = at(long, "2023-02-28", "quarter")
    for forged in (long.loc[row, "sources"].replace("a-3", "a-8"), "", "plus ?"):
        changed = long.copy()
        changed.loc[row, "sources"] = forged
        assert "unknown_source" in {one.kind for one in found(changed, facts)}


def test_rows_that_are_gone_or_twice_are_found(long: pd.DataFrame, facts: alignment.Facts) -> None:
    row = at(long, "2023-02-28", "quarter")
    (one,) = found(long.drop(index=row), facts)
    assert (one.kind, one.expected) == ("missing", "40")
    assert {one.kind for one in found(pd.concat([long, long.loc[[row]]]), facts)} == {"twice"}


def test_a_forged_twin_does_not_hide_behind_a_right_row(long: pd.DataFrame, facts: alignment.Facts) -> None:
    forged = long.loc[[at(long, "2023-01-31", "quarter")]].assign(value=40)
    for order in ([forged, long], [long, forged]):
        kinds = {one.kind for one in found(pd.concat(order), facts)}
        assert kinds == {"twice", "look_ahead"}


def test_a_date_in_another_notation_does_not_slip_by(long: pd.DataFrame, facts: alignment.Facts) -> None:
    forged = long.iloc[[3]].assign(value=40).astype({"date": object})
    for written in ("20230131", "2023-W05-2", "2023-01-31T00:00", " 2023-01-31", pd.Timestamp("2023-01-31 12:00")):
        forged["date"] = pd.Series([written], forged.index, dtype=object)
        with pytest.raises(UserError, match="of the table: found date"):
            alignment.audit(pd.concat([long.astype({"date": object}), forged]), facts)


def test_a_column_that_no_fact_has_is_found(long: pd.DataFrame, facts: alignment.Facts) -> None:
    forged = pd.concat([long, long.iloc[[3]].assign(concept="us-gaap:Revenues ")])
    assert {one.kind for one in found(forged, facts)} == {"unexpected", "unknown_source"}


def test_the_lag_of_the_table_has_to_be_said(facts: alignment.Facts) -> None:
    long = alignment.align(facts, grid="day", measures="quarter", lag=5).long()
    assert alignment.audit(long, facts, settings=alignment.Settings(lag=5)).ok
    assert alignment.audit(long, facts, settings=alignment.Settings(lag=6)).look_ahead == 5  # the quarters newly known


def test_arrays_of_the_result_that_are_tampered_with_are_found(facts: alignment.Facts) -> None:
    aligned = alignment.align(facts, grid="month", measures="quarter")
    (block,) = aligned.blocks
    block.cells[0, 0] = block.cells[0, -1]
    report = aligned.audit()
    assert report.look_ahead == 1
    assert {one.date for one in report.findings} == {str(aligned.dates[0].date())}


def test_a_result_whose_clock_is_wrong_is_found(table: Table) -> None:
    """As if the code had taken the period's end for the filing date."""
    frame = table(FACTS)
    wrong = alignment.align(frame.assign(filed=frame["end"]), grid="month", measures=["quarter", "year", "ttm"])
    report = alignment.audit(wrong, alignment.from_frame(frame))
    assert report.look_ahead > 0
    assert not report.ok


def test_a_column_that_is_not_there_is_found(facts: alignment.Facts) -> None:
    aligned = alignment.align(facts, grid="month", measures=["quarter", "ttm"])
    without = dataclasses.replace(aligned, blocks=aligned.blocks[:1])
    assert {one.kind for one in without.audit().findings} == {"missing"}


def test_a_sample_of_columns_is_audited_as_all_are(facts: alignment.Facts) -> None:
    aligned = alignment.align(facts, grid="month")
    assert aligned.audit(columns=1, seed=3).cells == len(aligned.dates)
    assert aligned.audit(columns=99).cells == len(aligned.dates) * len(aligned.measures)


def test_a_table_that_is_none_is_refused_in_one_line(long: pd.DataFrame, facts: alignment.Facts) -> None:
    with pytest.raises(UserError, match="'sources'"):
        alignment.audit(long.drop(columns="sources"), facts)
    with pytest.raises(UserError, match="against facts"):
        alignment.audit(long)
    with pytest.raises(UserError, match="no rows"):
        alignment.audit(long.iloc[:0], facts)
    for name, wrong in (("value", "many"), ("date", "soon"), ("measure", "month"), ("value", None)):
        changed = long.astype({name: object})
        changed.loc[2, name] = wrong
        with pytest.raises(UserError, match="row 2 of the table"):
            alignment.audit(changed, facts)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".json", ".jsonl"])
def test_a_table_that_was_written_is_audited_as_it_was(tmp_path: Path, facts: alignment.Facts, ending: str) -> None:
    from r1core_alignment import tables

    aligned = alignment.align(facts, grid="week")
    path = tmp_path / f"aligned{ending}"
    assert tables.write(aligned, path) == len(aligned.long())
    report = alignment.audit(tables.read(path), facts)
    assert report.ok, report.findings[:3]
    assert report.rows == len(aligned.long())
