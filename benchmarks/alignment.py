"""Facts onto a grid: rows with look-ahead, and facts a second, beside pandas' own as-of join.

Run: python benchmarks/alignment.py [--companies 2000] [--rounds 5] [--audited 200]

A universe of our own making: companies with 20 concepts over five years of quarters, each value filed with its period
and again a year later as a comparative, of which one in twenty is restated. Half of the concepts are instants, a
quarter three months with nine months and a year, a quarter stated since the start of the year only. Its facts go onto
month ends, all four default measures, as the frame of values: CPU seconds of one thread, medians of rounds in which
ours and the peer take turns. The peer computes less: instants only, and no provenance; there both are given the same
facts, and have to agree in every cell.

Rows with look-ahead are counted twice: every cell of the universe by the filing dates of its sources, and by the audit,
which recomputes a sample of columns; and all cells of one company's real history (shared/data/sec, where it is there).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import r1core_alignment as alignment
from r1core_alignment.aligned import Block
from r1core_alignment.timelines import Timeline
from record import write

CONCEPTS, QUARTERS = 20, 20
INSTANTS, INCOME = range(10), range(10, 15)
"""The other concepts are stated since the start of the year only."""
LEAST = 1_000_000
SNOW = Path("shared/data/sec/SNOW_companyfacts.json.gz")


def universe(companies: int, seed: int = 0) -> pd.DataFrame:
    """A tidy frame of facts, in no order."""
    rng = np.random.default_rng(seed)
    company, concept, quarter = (
        one.ravel()
        for one in np.meshgrid(np.arange(companies), np.arange(CONCEPTS), np.arange(QUARTERS), indexing="ij")
    )
    shift = rng.integers(0, 3, companies)  # the month in which a fiscal year ends
    month = np.datetime64("2017-01", "M").astype(int) + shift[company] + 3 * quarter
    place = quarter % 4
    rows = [  # which, and how many quarters the fact spans; 0 is an instant
        (np.isin(concept, INSTANTS), np.zeros_like(place)),
        (np.isin(concept, INCOME) & (place < 3), np.ones_like(place)),
        (np.isin(concept, INCOME) & (place == 2), np.full_like(place, 3)),
        (np.isin(concept, INCOME) & (place == 3), np.full_like(place, 4)),
        (concept >= INCOME.stop, place + 1),
    ]
    value = rng.integers(10**6, 10**10, len(company))
    wait = rng.integers(25, 75, (companies, QUARTERS + 4))
    parts = []
    for which, spans in rows:
        end = (month[which] + 3).astype("datetime64[M]").astype("datetime64[D]") - 1
        start = (month[which] + 3 - 3 * spans[which]).astype("datetime64[M]").astype("datetime64[D]")
        for later in (0, 4):
            filing = quarter[which] + later
            restated = rng.random(len(filing)) < (0.05 if later else 0.0)
            filed = (month[which] + 3 + 3 * later).astype("datetime64[M]").astype("datetime64[D]") - 1
            parts.append(
                {
                    "company": company[which], "concept": concept[which], "filing": filing, "end": end,
                    "value": value[which] * np.maximum(spans[which], 1) + restated * 1000,
                    "start": np.where(spans[which] > 0, start, np.datetime64("NaT")),
                    "filed": filed + wait[company[which], filing],
                }
            )  # fmt: skip
    held = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = rng.permutation(len(held["end"]))
    held = {name: column[order] for name, column in held.items()}
    entities = np.array([f"CIK{number:010d}" for number in range(companies)])
    accessions = np.array([f"{c:010d}-{f:02d}-000001" for c in range(companies) for f in range(QUARTERS + 4)])
    return pd.DataFrame(
        {
            "entity": entities[held["company"]],
            "concept": np.array([f"us-gaap:Concept{number:02d}" for number in range(CONCEPTS)])[held["concept"]],
            "unit": "USD",
            "value": held["value"],
            **{name: held[name].astype("datetime64[ns]") for name in ("start", "end", "filed")},
            "accession": accessions[held["company"] * (QUARTERS + 4) + held["filing"]],
            "form": np.where(held["filing"] % 4 == 3, "10-K", "10-Q"),
        }
    )


def joined(instants: pd.DataFrame, dates: pd.DatetimeIndex) -> pd.DataFrame:
    """The peer: one as-of join of pandas over all groups, after leaving out what a later period end supersedes."""
    held = instants.sort_values(["filed", "end"], kind="stable")
    newest = held["end"] == held.groupby(["entity", "concept"])["end"].cummax()
    held = held.loc[newest, ["entity", "concept", "filed", "value"]]
    keys = held[["entity", "concept"]].drop_duplicates()
    cells = keys.merge(pd.DataFrame({"date": dates.astype("datetime64[ns]")}), how="cross").sort_values("date")
    return pd.merge_asof(
        cells, held, left_on="date", right_on="filed", by=["entity", "concept"], allow_exact_matches=False
    )


def looped(instants: pd.DataFrame, dates: pd.DatetimeIndex) -> pd.DataFrame:
    """The peer as it is mostly written: an as-of join for each group in turn."""
    parts = []
    cells = pd.DataFrame({"date": dates.astype("datetime64[ns]")})
    for (entity, concept), held in instants.groupby(["entity", "concept"]):
        held = held.sort_values(["filed", "end"], kind="stable")
        held = held.loc[held["end"] == held["end"].cummax(), ["filed", "value"]]
        told = pd.merge_asof(cells, held, left_on="date", right_on="filed", allow_exact_matches=False)
        parts.append(told.assign(entity=entity, concept=concept))
    return pd.concat(parts)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def newest_source(told: Timeline, filed: np.ndarray) -> np.ndarray:
    """The last filing day among the facts of each version, from the facts themselves."""
    days = filed if told.quarters is None else newest_source(told.quarters, filed)
    return np.where(told.parts >= 0, days[told.parts], -1).max(axis=1)


def looking_ahead(block: Block, aligned: alignment.Aligned) -> int:
    """Cells of which some source is not filed before their date."""
    if not len(block.told.known):
        return 0
    newest = newest_source(block.told, aligned.facts.filed)
    return int(((newest[block.cells] >= aligned.days) & (block.cells >= 0)).sum())


def speed(frame: pd.DataFrame, facts: alignment.Facts, rounds: int) -> list[dict[str, object]]:
    """Ours on everything, and in turns with the peer on the instants."""
    everything = [seconds(lambda: alignment.align(facts, grid="month").values) for _ in range(rounds)]
    checking = [seconds(lambda: alignment.from_frame(frame)) for _ in range(rounds)]
    instants = frame[frame["start"].isna()]
    held = alignment.from_frame(instants)
    dates = alignment.align(held, grid="month", measures="instant").dates
    ours, peer, ratios = [], [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: alignment.align(held, grid=dates, measures="instant").values))
        peer.append(seconds(lambda: joined(instants, dates)))
        ratios.append(peer[-1] / ours[-1])
    few = instants[instants["entity"].isin(instants["entity"].unique()[:50])]
    loop = seconds(lambda: looped(few, dates))
    told = joined(instants, dates).pivot(index="date", columns=["entity", "concept"], values="value")
    values = alignment.align(held, grid=dates, measures="instant").values.droplevel(["unit", "measure"], axis=1)
    pd.testing.assert_frame_equal(
        values, told.reindex(columns=values.columns), check_freq=False, check_column_type=False
    )
    what = f"{len(frame):,} facts of a made-up universe, month ends"
    rate = len(frame) / statistics.median(everything)
    pandas = f"pandas {pd.__version__}"
    return [
        {**rated(f"aligned, all measures ({what})", rate), "target": f">= {LEAST}", "met": rate >= LEAST},
        rated(f"frame checked and sorted ({what})", len(frame) / statistics.median(checking)),
        rated(f"aligned, {len(instants):,} instants only", len(instants) / statistics.median(ours)),
        rated("one merge_asof by group, the same instants", len(instants) / statistics.median(peer), pandas),
        rated(f"a merge_asof for each group, {len(few):,} of them", len(few) / loop, pandas),
        {
            "figure": "time of one merge_asof over ours, the same instants",
            "value": round(statistics.median(ratios), 2),
            "unit": "times",
            "peer": pandas,
        },
    ]


def rated(figure: str, rate: float, peer: str | None = None) -> dict[str, object]:
    return {"figure": figure, "value": round(rate), "unit": "facts/CPU-s", "peer": peer}


def look_ahead(facts: alignment.Facts, columns: int) -> list[dict[str, object]]:
    """Rows with look-ahead in the universe and in the real history."""
    aligned = alignment.align(facts, grid="month")
    ahead = sum(looking_ahead(block, aligned) for block in aligned.blocks)
    cells = sum(int((block.cells >= 0).sum()) for block in aligned.blocks)
    sample = aligned.audit(columns=columns)
    rows: list[dict[str, object]] = [
        counted(f"rows with look-ahead, {cells:,} cells of the universe", ahead),
        counted(f"findings of the audit, {sample.rows:,} cells of the universe recomputed", len(sample.findings)),
    ]
    path = next((one / SNOW for one in Path(__file__).resolve().parents if (one / SNOW).is_file()), None)
    if path is not None:
        began = time.process_time()
        real = alignment.read(path)
        took = time.process_time() - began
        report = alignment.align(real, grid="week").audit()
        rows += [
            counted(f"rows with look-ahead, {report.rows:,} cells of SNOW, weekly", report.look_ahead),
            counted(f"findings of the audit, the same, of {report.sources:,} facts", len(report.findings)),
            rated(f"companyfacts read, {len(real):,} facts of SNOW", len(real) / took),
        ]  # fmt: skip
    return rows


def counted(figure: str, count: int) -> dict[str, object]:
    return {"figure": figure, "value": count, "unit": "rows", "target": "0", "met": count == 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--companies", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--audited", type=int, default=200, help="columns of the universe that the audit recomputes")
    chosen = parser.parse_args()
    frame = universe(chosen.companies)
    facts = alignment.from_frame(frame)
    assert len(facts) == len(frame), facts.left_out
    write("alignment", [*look_ahead(facts, chosen.audited), *speed(frame, facts, chosen.rounds)])


if __name__ == "__main__":
    main()
