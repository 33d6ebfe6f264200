"""Facts onto a grid: for each date the latest period end among what was filed before it, then the latest filing.

There is no way to ask for a fact by its period's end: the only clock is the filing date, and a lag only makes it later.
"""

# S = series, C = columns (series and measure), G = dates of the grid, V = versions

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from r1core.api import UserError
from r1core_alignment.additivity import why_not_additive
from r1core_alignment.aligned import Aligned, Block
from r1core_alignment.days import BITS, Days
from r1core_alignment.facts import Facts
from r1core_alignment.grid import Day, Grid, grid_days
from r1core_alignment.periods import DEFAULT, KINDS, MEASURES, Measure
from r1core_alignment.settings import Settings
from r1core_alignment.tidy import from_frame
from r1core_alignment.timelines import REPORTED, Timeline, quarters, reported, twelve_months


def align(
    facts: Facts | pd.DataFrame,
    *,
    grid: Grid = "month",
    start: Day | None = None,
    end: Day | None = None,
    concepts: str | Iterable[str] | None = None,
    entities: str | int | Iterable[str | int] | None = None,
    measures: str | Sequence[str] = DEFAULT,
    lag: int = 0,
    max_age: int | None = None,
    additive: Iterable[str] = (),
    non_additive: Iterable[str] = (),
) -> Aligned:
    """What was known of each concept on each date of a grid: facts filed strictly before it.

    Parameters
    ----------
    facts : `Facts`, or a tidy frame (`from_frame`).
    grid : `day`, `week` (Fridays), `month` or `quarter` (last calendar days), or dates in ascending order.
    start, end : bounds of the grid, both counted; None = from the first to the last fact.
    concepts, entities : which of them; None = all.
    measures : of `instant`, `quarter`, `six_months`, `nine_months`, `year`, `ttm` (twelve months of four quarters).
    lag : days that a fact stays unknown beyond its filing date, 0 or more.
    max_age : days from a period's end after which it is no longer shown; None = it is shown until a later one is known.
    additive, non_additive : concepts whose periods add up, or do not, whatever their unit and name say.

    Raises
    ------
    UserError : for an argument that means nothing, and a concept or entity that no fact has.
    """
    held = facts if isinstance(facts, Facts) else from_frame(facts)
    held = held.select(concepts, entities)
    if not len(held):
        raise UserError("no fact is left to align", fix="see `left_out` of the facts for the reasons")
    wanted = _measures(measures)
    settings = Settings(lag, max_age, frozenset(_names(additive)), frozenset(_names(non_additive)))
    seen, last = int(held.filed.min()), int(held.filed.max())
    days = grid_days(grid, start, end, seen + settings.lag + 1, last + settings.lag + 1)
    pairs = list(zip(held.series["concept"], held.series["unit"], strict=True))
    why = {pair: why_not_additive(*pair, settings.additive, settings.non_additive) for pair in set(pairs)}
    reasons = [why[pair] for pair in pairs]
    timelines = _timelines(held, wanted, np.array([one is None for one in reasons]))
    blocks = tuple(_block(measure, one, days, settings) for measure, one in timelines.items())
    return Aligned(held, days, blocks, settings, tuple(wanted), tuple(reasons))


def _timelines(held: Facts, wanted: Sequence[Measure], additive: np.ndarray) -> dict[Measure, Timeline]:
    spans: list[Measure] = [one for one in KINDS if one != "instant"]
    plain = {measure: reported(held, KINDS[measure]) for measure in spans}
    made: dict[Measure, Timeline] = {}
    if {"quarter", "ttm"} & set(wanted):
        made["quarter"] = quarters(held, list(plain.values()), additive)
        if "ttm" in wanted:
            made["ttm"] = twelve_months(made["quarter"], additive, held.series["concept"].to_numpy())
    if "instant" in wanted:
        made["instant"] = reported(held, KINDS["instant"])
    return {measure: made[measure] if measure in made else plain[measure] for measure in wanted}


def _block(measure: Measure, told: Timeline, days: Days, settings: Settings) -> Block:
    """Cells of one measure: for each of its series and each date the place of a version, -1 where nothing is known."""
    series, column = np.unique(told.series, return_inverse=True)
    cells = np.full((len(series), len(days)), -1, np.int32)
    order = _ranked(told)
    seen = np.searchsorted(days, np.arange(2**BITS) + settings.lag, side="right")[told.known[order]]
    shown = seen < len(days)
    place = column[told.period[order[shown]]] * len(days) + seen[shown]
    np.maximum.at(cells.reshape(-1), place, np.flatnonzero(shown).astype(np.int32))
    np.maximum.accumulate(cells, axis=1, out=cells)
    known = cells >= 0
    cells[known] = order[cells[known]]
    if settings.max_age is not None and len(order):
        ended = told.end[told.period[cells]]
        cells[known & (days - ended > settings.max_age)] = -1
    return Block(measure, told, series, cells)


def _ranked(told: Timeline) -> np.ndarray:
    """Versions by what is preferred, the best one last: period end, reported, filing date, start; in each series."""
    period = told.period
    places = np.arange(len(period))
    clash = (told.series[1:] == told.series[:-1]) & (told.end[1:] == told.end[:-1])
    if not clash.any():
        return places  # the order of a timeline, where no two of its periods end on one day
    stated = told.rule == REPORTED
    ends = told.series[period] << BITS | told.end[period]
    return np.lexsort((places, told.known, stated, ends))


def _measures(given: str | Sequence[str]) -> list[Measure]:
    wanted = [given] if isinstance(given, str) else list(given)
    unknown = [one for one in wanted if one not in MEASURES]
    if unknown or not wanted:
        raise UserError(f"unknown measure {unknown[0]!r}" if unknown else "no measure", fix=f"of {', '.join(MEASURES)}")
    return [one for one in MEASURES if one in wanted]


def _names(given: Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
