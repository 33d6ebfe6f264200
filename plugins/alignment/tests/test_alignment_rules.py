"""Each sentence of what the alignment promises, on facts made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import r1core_alignment as alignment
from r1core_alignment.periods import MEASURES

from r1core.api import UserError

Table = Callable[..., pd.DataFrame]

YEAR = """
2022-01-01..2022-03-31 10 2022-04-20
2022-01-01..2022-06-30 30 2022-07-20
2022-01-01..2022-09-30 60 2022-10-20
2022-01-01..2022-12-31 100 2023-02-20 k-001 10-K
"""
"""Quarters of 10, 20, 30 and 40; only the first is reported as such."""


def on(frame: pd.DataFrame, dates: list[str], measure: str, **how: Any) -> list[float | None]:
    """The values of the only column of a measure, None where nothing is known; audited."""
    aligned = alignment.align(frame, grid=dates, measures=measure, **how)
    assert aligned.audit().ok, aligned.audit().findings
    if aligned.values.empty:
        return [None] * len(dates)
    (column,) = aligned.values.columns
    return [None if pd.isna(value) else value for value in aligned.values[column]]


def card(frame: pd.DataFrame, date: str, measure: str, **how: Any) -> alignment.Provenance:
    return alignment.align(frame, grid=[date], measures=measure, **how).provenance.iloc[0, 0]


def test_a_fact_is_known_strictly_after_its_filing_date(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20")
    assert on(frame, ["2022-04-19", "2022-04-20", "2022-04-21"], "instant") == [None, None, 5]


def test_a_lag_makes_it_later_and_never_earlier(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20")
    assert on(frame, ["2022-04-21", "2022-04-22", "2022-04-23"], "instant", lag=2) == [None, None, 5]
    for lag in (-1, 1.5, True, None, 10**30):
        with pytest.raises(UserError, match="lag is"):
            alignment.align(frame, lag=lag)  # type: ignore[arg-type]


def test_the_latest_period_end_wins_over_a_later_filing_of_an_older_one(table: Table) -> None:
    frame = table("2022-06-30 7 2022-07-20\n2022-03-31 5 2022-04-20\n2022-03-31 6 2022-08-01")
    assert on(frame, ["2022-05-01", "2022-07-21", "2022-08-02"], "instant") == [5, 7, 7]


def test_a_restatement_replaces_from_its_own_filing_on(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20\n2022-03-31 4 2022-05-10 a-2 10-Q/A")
    assert on(frame, ["2022-05-09", "2022-05-10", "2022-05-11"], "instant") == [5, 5, 4]
    assert card(frame, "2022-05-10", "instant").form == "10-Q"
    assert card(frame, "2022-05-11", "instant").form == "10-Q/A"


def test_a_repeat_names_the_latest_filing_and_since_when_the_value_stands(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20 a-1\n2022-03-31 5 2022-07-20 a-2\n2022-03-31 9 2022-08-01 a-3")
    repeated = card(frame, "2022-07-21", "instant")
    assert (repeated.accession, repeated.filed, repeated.first_filed) == ("a-2", "2022-07-20", "2022-04-20")
    assert card(frame, "2022-08-02", "instant").first_filed == "2022-08-01"


def test_of_two_filings_on_one_day_the_later_accession_wins_in_any_order_of_rows(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20 a-2 10-K/A\n2022-03-31 4 2022-04-20 a-1 10-K")
    for order in ([0, 1], [1, 0]):
        assert on(frame.iloc[order], ["2022-05-01"], "instant") == [5]


def test_the_labels_of_a_filing_do_not_move_a_comparative(table: Table) -> None:
    frame = table("2021-01-01..2021-03-31 8 2022-04-20\n2022-01-01..2022-03-31 10 2022-04-20")
    frame = frame.assign(fy=2022, fp="Q1")  # both carry the filing's
    assert on(frame, ["2022-05-01"], "quarter") == [10]
    assert card(frame, "2022-05-01", "quarter").start == "2022-01-01"


def test_the_fourth_quarter_is_the_year_less_nine_months_and_known_with_the_later_of_both(table: Table) -> None:
    frame = table(YEAR)
    dates = ["2022-04-21", "2022-07-21", "2022-10-21", "2023-02-20", "2023-02-21"]
    assert on(frame, dates, "quarter") == [10, 20, 30, 30, 40]
    found = card(frame, "2023-02-21", "quarter")
    assert (found.rule, found.start, found.end) == ("year - nine_months", "2022-10-01", "2022-12-31")
    assert (found.accession, found.filed, found.form) == ("k-001", "2023-02-20", "10-K")
    assert [(one.sign, one.value, one.filed) for one in found.sources] == [
        (1, 100, "2023-02-20"),
        (-1, 60, "2022-10-20"),
    ]


def test_nine_months_that_are_filed_after_the_year_delay_the_quarter(table: Table) -> None:
    frame = table("2022-01-01..2022-12-31 100 2023-02-20\n2022-01-01..2022-09-30 60 2023-10-20")
    assert on(frame, ["2023-02-21", "2023-10-20", "2023-10-21"], "quarter") == [None, None, 40]


def test_a_restated_year_moves_its_fourth_quarter_from_then_on(table: Table) -> None:
    frame = table(YEAR + "2022-01-01..2022-12-31 105 2023-03-15 k-002 10-K/A")
    assert on(frame, ["2023-03-15", "2023-03-16"], "quarter") == [40, 45]
    assert on(frame, ["2023-03-15", "2023-03-16"], "ttm") == [100, 105]


def test_a_reported_quarter_replaces_the_difference_from_its_filing_on(table: Table) -> None:
    frame = table(YEAR + "2022-10-01..2022-12-31 41 2023-03-01")
    assert on(frame, ["2023-03-01", "2023-03-02"], "quarter") == [40, 41]
    assert on(frame, ["2023-03-01", "2023-03-02"], "ttm") == [100, 101]
    late = table(YEAR + "2022-10-01..2022-12-31 41 2023-03-01\n2022-01-01..2022-12-31 999 2023-05-01")
    assert on(late, ["2023-05-02"], "quarter") == [41]


def test_a_difference_needs_the_same_first_day(table: Table) -> None:
    frame = table("2022-01-02..2022-09-30 60 2022-10-20\n2022-01-01..2022-12-31 100 2023-02-20")
    assert on(frame, ["2023-03-01"], "quarter") == [None]


def test_twelve_months_need_four_contiguous_quarters(table: Table) -> None:
    whole = table(YEAR + "2023-01-01..2023-03-31 15 2023-04-20")
    assert on(whole, ["2023-02-20", "2023-02-21", "2023-04-21"], "ttm") == [None, 100, 105]
    gap = table(YEAR + "2023-01-02..2023-03-31 15 2023-04-20")
    assert on(gap, ["2023-04-21"], "ttm") == [100]
    assert card(gap, "2023-04-21", "ttm").end == "2022-12-31"


def test_a_year_alone_is_no_twelve_months(table: Table) -> None:
    frame = table("2022-01-01..2022-12-31 100 2023-02-20")
    assert on(frame, ["2023-03-01"], "ttm") == [None]
    assert on(frame, ["2023-03-01"], "year") == [100]


def test_twelve_months_name_every_fact_and_the_last_filing(table: Table) -> None:
    found = card(table(YEAR), "2023-02-21", "ttm")
    assert found.filed == "2023-02-20"
    assert sum(one.sign * one.value for one in found.sources) == 100
    assert len(found.sources) == 7  # 100 - 60, 60 - 30, 30 - 10, 10
    assert (found.start, found.end, found.rule) == ("2022-01-01", "2022-12-31", "four quarters")


@pytest.mark.parametrize(
    ("ends", "name"),
    [
        (("2022-03-26", "2022-06-25", "2022-09-24", "2022-12-31"), "13-13-13-14 weeks"),
        (("2022-03-26", "2022-06-25", "2022-09-24", "2022-12-24"), "13-13-13-13 weeks"),
        (("2022-03-19", "2022-06-11", "2022-09-03", "2022-12-24"), "12-12-12-16 weeks"),
        (("2022-04-16", "2022-07-09", "2022-10-01", "2022-12-24"), "16-12-12-12 weeks"),
    ],
)
def test_years_of_52_and_53_weeks(table: Table, ends: tuple[str, ...], name: str) -> None:
    lines = [
        f"2021-12-26..{end} {total} 2023-0{n}-01"
        for n, (end, total) in enumerate(zip(ends, (10, 30, 60, 100), strict=True), 1)
    ]
    frame = table("\n".join(lines))
    assert on(frame, ["2023-01-02", "2023-02-02", "2023-03-02", "2023-04-02"], "quarter") == [10, 20, 30, 40], name
    assert on(frame, ["2023-04-02"], "ttm") == [100]
    assert on(frame, ["2023-04-02"], "year") == [100]


def test_periods_of_other_lengths_are_no_measure(table: Table) -> None:
    frame = table(
        "2022-01-01..2022-01-31 3 2022-02-20\n2022-01-01..2022-05-31 4 2022-06-20\n2021-01-01..2022-01-31 5 2022-02-20"
    )
    every = alignment.align(frame, measures=MEASURES, grid=["2023-01-01"])
    assert every.values.empty


@pytest.mark.parametrize(
    ("concept", "unit"),
    [
        ("us-gaap:EarningsPerShareBasic", "USD/shares"),
        ("us-gaap:EarningsPerShareBasic", "USD"),
        ("us-gaap:WeightedAverageNumberOfSharesOutstandingBasic", "shares"),
        ("us-gaap:EffectiveIncomeTaxRateContinuingOperations", "pure"),
        ("us-gaap:DebtInstrumentAverageAmountOutstanding", "USD"),
    ],
)
def test_what_does_not_add_up_is_not_derived_and_said_why(table: Table, concept: str, unit: str) -> None:
    frame = table(YEAR, concept=concept, unit=unit)
    aligned = alignment.align(frame, measures=["quarter", "year", "ttm"], grid=["2023-03-01"])
    assert aligned.values.xs("quarter", axis=1, level="measure").iloc[0, 0] == 10  # as reported, of its own period
    assert aligned.values.xs("year", axis=1, level="measure").iloc[0, 0] == 100
    assert "ttm" not in aligned.columns.get_level_values("measure")
    assert set(aligned.withheld["measure"]) == {"quarter", "ttm"}
    assert aligned.withheld["reason"].str.contains("add up").all()
    assert aligned.audit().ok
    forced = alignment.align(frame, measures="ttm", grid=["2023-03-01"], additive=[concept])
    assert forced.values.iloc[0, 0] == 100


def test_a_concept_can_be_named_as_not_additive(table: Table) -> None:
    aligned = alignment.align(table(YEAR), measures="ttm", grid=["2023-03-01"], non_additive=["Revenues"])
    assert aligned.values.empty
    assert aligned.withheld["reason"].tolist() == ["it is named as not additive"]


def test_the_effect_of_exchange_rates_on_cash_is_a_flow_of_money(table: Table) -> None:
    frame = table(YEAR, concept="us-gaap:EffectOfExchangeRateOnCash")
    assert on(frame, ["2023-03-01"], "ttm") == [100]


def test_units_and_entities_are_never_mixed(table: Table) -> None:
    frame = pd.concat(
        [
            table("2022-03-31 5 2022-04-20"),
            table("2022-06-30 500 2022-07-20", unit="EUR"),
            table("2022-06-30 50 2022-07-20", entity="OTHER"),
        ]
    )
    values = alignment.align(frame, grid=["2022-08-01"]).values
    assert values.iloc[0].to_dict() == {
        ("ACME", "us-gaap:Revenues", "EUR", "instant"): 500,
        ("ACME", "us-gaap:Revenues", "USD", "instant"): 5,
        ("OTHER", "us-gaap:Revenues", "USD", "instant"): 50,
    }


def test_instants_and_durations_of_one_concept_stay_apart(table: Table) -> None:
    frame = table("2022-01-01..2022-03-31 10 2022-04-20\n2022-03-31 5 2022-04-20")
    assert on(frame, ["2022-05-01"], "instant") == [5]
    assert on(frame, ["2022-05-01"], "quarter") == [10]


def test_a_period_that_ends_behind_its_filing_is_left_out_and_told(table: Table) -> None:
    facts = alignment.from_frame(table("2022-03-31 5 2022-04-20\n2032-03-31 9 2022-04-20"))
    assert len(facts) == 1
    assert facts.left_out["reason"].tolist() == ["its period ends behind its filing date"]
    assert facts.left_out["value"].tolist() == ["9"]


def test_two_values_of_one_filing_are_left_out_and_equal_ones_count_once(table: Table) -> None:
    facts = alignment.from_frame(table("2022-03-31 5 2022-04-20 a-1\n2022-03-31 5.00 2022-04-20 a-1"))
    assert len(facts) == 1
    assert facts.left_out.empty
    torn = table("2021-12-31 4 2022-02-20 a-0\n2022-03-31 5 2022-04-20 a-1\n2022-03-31 6 2022-04-20 a-1")
    facts = alignment.from_frame(torn)
    assert facts.left_out["reason"].tolist() == ["its filing states several values for one period"] * 2
    assert on(torn, ["2022-05-01"], "instant") == [4]


def test_what_is_old_can_be_left_empty(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20")
    assert on(frame, ["2022-09-27", "2022-09-28"], "instant", max_age=180) == [5, None]
    assert on(frame, ["2032-09-28"], "instant") == [5]


def test_reordering_the_rows_changes_nothing(table: Table) -> None:
    frame = table(YEAR + "2022-01-01..2022-12-31 105 2023-03-15\n2022-10-01..2022-12-31 41 2023-03-20")
    told = alignment.align(frame, grid="week").long()
    for seed in range(3):
        shuffled = alignment.align(frame.sample(frac=1, random_state=seed), grid="week").long()
        pd.testing.assert_frame_equal(told, shuffled)


def test_the_grids_and_where_they_end(table: Table) -> None:
    frame = table("2022-03-31 5 2022-04-20\n2022-06-30 7 2022-07-29")
    ends = {grid: alignment.align(frame, grid=grid).dates for grid in ("day", "week", "month", "quarter")}
    assert [str(dates[0].date()) for dates in ends.values()] == ["2022-04-21", "2022-04-22", "2022-04-30", "2022-06-30"]
    assert [str(dates[-1].date()) for dates in ends.values()] == [
        "2022-07-30",
        "2022-08-05",
        "2022-07-31",
        "2022-09-30",
    ]
    assert (ends["week"].dayofweek == 4).all()
    assert (ends["month"] == pd.date_range("2022-04-30", "2022-07-31", freq="ME")).all()
    assert (ends["quarter"] == pd.date_range("2022-06-30", "2022-09-30", freq="QE")).all()
    bounded = alignment.align(frame, grid="month", start="2020-01-31", end="2020-03-31").values
    assert [str(day.date()) for day in bounded.index] == ["2020-01-31", "2020-02-29", "2020-03-31"]
    assert bounded.isna().all(axis=None)
