"""One company's whole history at the SEC: no look-ahead, and published figures read from the file by another path."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import r1core_alignment as alignment

REVENUE = "RevenueFromContractWithCustomerExcludingAssessedTax"


@pytest.fixture(scope="module")
def raw(snow_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(snow_path.read_bytes()))
    return content["facts"]["us-gaap"]


def stated(raw: dict[str, Any], concept: str, start: str | None, end: str, before: str, unit: str = "USD") -> float:
    """What the last filing before a day says of a period."""
    known = [
        one for one in raw[concept]["units"][unit]
        if one.get("start") == start and one["end"] == end and one["filed"] < before
    ]  # fmt: skip
    return max(known, key=lambda one: (one["filed"], one["accn"]))["val"]


def test_every_cell_of_a_few_concepts_stands_the_audit(snow: alignment.Facts) -> None:
    concepts = [
        REVENUE,
        "Assets",
        "NetIncomeLoss",
        "EarningsPerShareBasic",
        "NetCashProvidedByUsedInOperatingActivities",
    ]
    concepts += ["ComprehensiveIncomeNetOfTax", "PaymentsToAcquirePropertyPlantAndEquipment"]
    report = alignment.align(snow, grid="week", concepts=concepts).audit()
    assert report.ok, report.findings[:3]
    assert report.look_ahead == 0
    assert report.rows > 3000


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 30])
def test_every_cell_of_every_concept_stands_the_audit(snow: alignment.Facts, lag: int) -> None:
    report = alignment.align(snow, grid="month", lag=lag).audit()
    assert report.ok, report.findings[:3]
    assert report.rows > 20_000


def test_no_source_is_filed_on_or_after_its_date(snow: alignment.Facts, raw: dict[str, Any]) -> None:
    filed = {one["accn"]: one["filed"] for held in raw.values() for facts in held["units"].values() for one in facts}
    table = alignment.align(snow, grid="day", start="2024-01-01", end="2024-12-31", concepts=[REVENUE, "Assets"]).long()
    assert len(table) == 366 * 4
    for date, sources in zip(table["date"], table["sources"], strict=True):
        for source in sources.split("; "):
            accession = source.rsplit(" as ", 1)[1].split(" (")[0]
            assert filed[accession] < str(date.date())


def test_the_balance_sheet_on_the_day_of_the_filing_and_after(snow: alignment.Facts, raw: dict[str, Any]) -> None:
    values = alignment.align(snow, grid="day", concepts="Assets", measures="instant").values.iloc[:, 0]
    assert values["2024-03-26"] == stated(raw, "Assets", None, "2023-10-31", "2024-03-26")
    assert values["2024-03-27"] == stated(raw, "Assets", None, "2024-01-31", "2024-03-27")
    assert values["2024-03-27"] == 8_223_383_000


def test_the_fourth_quarter_of_revenue(snow: alignment.Facts, raw: dict[str, Any]) -> None:
    values = alignment.align(snow, grid="day", concepts=REVENUE, measures="quarter").values.iloc[:, 0]
    year = stated(raw, REVENUE, "2023-02-01", "2024-01-31", "2024-03-27")
    nine = stated(raw, REVENUE, "2023-02-01", "2023-10-31", "2024-03-27")
    assert values["2024-03-27"] == year - nine == 774_699_000
    assert values["2024-03-26"] == stated(raw, REVENUE, "2023-08-01", "2023-10-31", "2024-03-26") == 734_173_000


def test_twelve_months_of_revenue_by_hand(snow: alignment.Facts, raw: dict[str, Any]) -> None:
    values = alignment.align(snow, grid="day", concepts=REVENUE, measures="ttm").values.iloc[:, 0]
    year = stated(raw, REVENUE, "2023-02-01", "2024-01-31", "2024-06-01")
    first = stated(raw, REVENUE, "2024-02-01", "2024-04-30", "2024-06-01")
    before = stated(raw, REVENUE, "2023-02-01", "2023-04-30", "2024-06-01")
    assert values["2024-06-01"] == year - before + first == 3_011_599_000
    for end, start in (("2022-01-31", "2021-02-01"), ("2023-01-31", "2022-02-01"), ("2025-01-31", "2024-02-01")):
        known = pd.Timestamp(end) + pd.Timedelta(days=75)  # after the annual report, before the next quarter's
        assert values[known] == stated(raw, REVENUE, start, end, str(known.date()))


def test_cash_flows_that_are_only_stated_since_the_start_of_the_year(
    snow: alignment.Facts, raw: dict[str, Any]
) -> None:
    concept = "NetCashProvidedByUsedInOperatingActivities"
    values = alignment.align(snow, grid="day", concepts=concept, measures="quarter").values.iloc[:, 0]
    six = stated(raw, concept, "2023-02-01", "2023-07-31", "2023-09-15")
    three = stated(raw, concept, "2023-02-01", "2023-04-30", "2023-09-15")
    assert values["2023-09-15"] == six - three


def test_a_recast_year_is_seen_from_the_next_annual_report_on(snow: alignment.Facts) -> None:
    """Comprehensive loss of fiscal 2023: 819.512 million in March 2023, 818.691 million a year later."""
    cards = alignment.align(snow, grid="day", concepts="ComprehensiveIncomeNetOfTax", measures="year").provenance.iloc[
        :, 0
    ]
    assert cards["2024-03-26"].value == -819_512_000
    assert cards["2024-03-26"].filed == "2023-03-29"
    assert cards["2024-03-27"].end == "2024-01-31"
    facts = snow.frame()
    recast = facts[(facts["concept"] == "us-gaap:ComprehensiveIncomeNetOfTax") & (facts["end"] == "2023-01-31")]
    told = alignment.align(recast, grid=["2024-03-26", "2024-03-27"], measures="year").provenance.iloc[:, 0]
    assert [card.value for card in told] == [-819_512_000, -818_691_000]


def test_per_share_amounts_are_never_summed(snow: alignment.Facts) -> None:
    aligned = alignment.align(snow, concepts=["EarningsPerShareBasic", "WeightedAverageNumberOfSharesOutstandingBasic"])
    assert set(aligned.columns.get_level_values("measure")) == {"quarter", "year"}
    assert (aligned.long()["rule"] == "reported").all()
    assert set(aligned.withheld["measure"]) == {"quarter", "ttm"}


def test_what_was_filed_later_changes_nothing(snow: alignment.Facts) -> None:
    """The whole table up to a date, made of everything and made of what had been filed."""
    frame = snow.frame()
    date = pd.Timestamp("2023-06-30")
    whole = alignment.align(snow, grid="quarter", start="2020-12-31", end="2023-06-30").long(exact=True)
    past = alignment.align(frame[frame["filed"] < date], grid="quarter", start="2020-12-31", end="2023-06-30")
    pd.testing.assert_frame_equal(whole, past.long(exact=True))
