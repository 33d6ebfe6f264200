"""The result: values on a grid, and for every one of them which filings it is made of.

Cells are places of versions (4 bytes each); frames are made when they are asked for. Not covered: exactness in the
frame of the values, which holds float64, a decimal as the nearest one; `long(exact=True)` holds what was written.
"""

# C = columns, G = dates, U = versions in use, R = rows of the tidy table

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from r1core.api import UserError
from r1core_alignment.days import Days, iso, to_datetimes
from r1core_alignment.exact import as_floats, as_numbers, over_floats
from r1core_alignment.facts import Facts
from r1core_alignment.periods import INSTANT, MEASURES, Measure
from r1core_alignment.provenance import Provenance, cards_of, first_filed
from r1core_alignment.settings import Settings
from r1core_alignment.timelines import Indices, Timeline

if TYPE_CHECKING:
    from r1core_alignment.auditing import AuditReport

LEVELS = ("entity", "concept", "unit", "measure")
_CARD = ("value", "start", "end", "rule", "accession", "filed", "form", "first_filed", "sources")
LONG = ("date", *LEVELS, *_CARD)
"""Columns of the tidy table."""


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Block:
    """One measure: `series` (C,) codes of its columns, `cells` (C, G) places of versions, -1 where nothing is known."""

    measure: Measure
    told: Timeline
    series: Indices
    cells: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Aligned:
    """Facts on a grid.

    Parameters
    ----------
    facts : those that were aligned. days : (G,) the grid. blocks : one a measure. settings : as given.
    measures : as asked for. reasons : for each series why its periods do not add up, or None.
    """

    facts: Facts
    days: Days
    blocks: tuple[Block, ...]
    settings: Settings
    measures: tuple[Measure, ...]
    reasons: tuple[str | None, ...]

    def __repr__(self) -> str:
        first, last = (iso(day) for day in self.days[[0, -1]])
        return f"<Aligned: {len(self.days)} dates from {first} to {last}, {len(self._order)} columns>"

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The dates of the grid, (G,)."""
        return pd.DatetimeIndex(to_datetimes(self.days), name="date")

    @cached_property
    def columns(self) -> pd.MultiIndex:
        """Entity, concept, unit and measure of each column, (C,)."""
        codes = np.concatenate([block.series for block in self.blocks])[self._order]
        named = [self.facts.series[name].to_numpy()[codes] for name in LEVELS[:3]]
        measures = np.repeat([block.measure for block in self.blocks], [len(block.series) for block in self.blocks])
        return pd.MultiIndex.from_arrays([*named, measures[self._order].astype(object)], names=LEVELS)

    @cached_property
    def values(self) -> pd.DataFrame:
        """(G, C) float64, NaN where nothing is known; a column with a whole number over 2**53 holds objects instead."""
        made, large = [], []
        for block in self.blocks:
            told = block.told
            floats = np.append(as_floats(told.mantissa, told.scale), np.nan)  # a cell of -1 takes the last one
            made.append(floats[block.cells])
            large.append(self._over_floats(block, block.cells).any(axis=1))
        frame = pd.DataFrame(np.concatenate(made)[self._order].T, index=self.dates, columns=self.columns)
        over = np.concatenate(large)
        if not over.any():
            return frame
        exact = [one for block in self.blocks for one in self._exact(block)]
        columns = [
            pd.Series(exact[place], self.dates, dtype=object) if over[place] else frame.iloc[:, number]
            for number, place in enumerate(self._order)
        ]
        return pd.concat(columns, axis=1, keys=range(len(columns))).set_axis(self.columns, axis=1)

    @cached_property
    def provenance(self) -> pd.DataFrame:
        """(G, C) a `Provenance` for every value, None where nothing is known."""
        made = []
        for block in self.blocks:
            used, cells = self._used(block.cells)
            cards = np.empty(len(used) + 1, dtype=object)
            cards[: len(used)] = self._cards(block, used)
            made.append(cards[cells])
        return pd.DataFrame(np.concatenate(made)[self._order].T, index=self.dates, columns=self.columns)

    def long(self, *, exact: bool = False, columns: Sequence[int] | None = None) -> pd.DataFrame:
        """The tidy table: one row for each column and date at which something is known, columns `LONG`.

        Parameters
        ----------
        exact : values as `int` and `Decimal` instead of float64. columns : which of `self.columns`; None = all.

        Raises
        ------
        UserError : where a whole number is over 2**53 and `exact` was not asked for.
        """
        wanted = np.zeros(len(self.columns), bool)
        wanted[slice(None) if columns is None else list(columns)] = True
        numbers = np.empty(len(self.columns), np.int64)
        numbers[self._order] = np.arange(len(self.columns))
        parts, begun = [], 0
        for block in self.blocks:
            mine = numbers[begun : begun + len(block.series)]
            begun += len(block.series)
            parts.append(self._rows(block, mine, wanted[mine], exact))
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        table = table.sort_values(["column", "date"], kind="stable", ignore_index=True)
        heads = self.columns[table.pop("column").to_numpy(np.int64)]
        for number, level in enumerate(LEVELS):
            table.insert(number + 1, level, heads.get_level_values(level))
        return table

    @property
    def withheld(self) -> pd.DataFrame:
        """Quarters and twelve months that were asked for and are not derived: `LEVELS` and the reason."""
        asked = [one for one in self.measures if one in ("quarter", "ttm")]
        durations = set(np.unique(self.facts.code[self.facts.kind != INSTANT]).tolist())
        names = list(zip(*(self.facts.series[name] for name in LEVELS[:3]), strict=True))
        rows = [
            (*names[code], measure, reason)
            for code, reason in enumerate(self.reasons)
            if reason is not None and code in durations
            for measure in asked
        ]
        return pd.DataFrame(rows, columns=[*LEVELS, "reason"])

    def audit(self, *, columns: int | None = None, seed: int = 0) -> AuditReport:
        """Recompute every cell by filtering the facts first (`r1core_alignment.audit`).

        Parameters
        ----------
        columns : so many columns only, drawn by `seed`; None = all.
        """
        from r1core_alignment.auditing import audit

        return audit(self, columns=columns, seed=seed)

    @cached_property
    def _order(self) -> Indices:
        """The columns, counted through the blocks, by series and measure."""
        codes = np.concatenate([block.series for block in self.blocks])
        ranks = np.repeat(
            [MEASURES.index(one.measure) for one in self.blocks], [len(one.series) for one in self.blocks]
        )
        return np.lexsort((ranks, codes))

    @cached_property
    def _first_filed(self) -> Days:
        return first_filed(self.facts)

    @staticmethod
    def _over_floats(block: Block, cells: np.ndarray) -> np.ndarray:
        """Which cells hold a whole number over 2**53."""
        over = over_floats(block.told.mantissa, block.told.scale)
        return np.append(over, False)[cells] if over.any() else np.zeros(cells.shape, bool)

    @staticmethod
    def _exact(block: Block) -> Sequence[np.ndarray]:
        """For each column of a block its values as they are, None where nothing is known."""
        told = block.told
        every = np.empty(len(told.mantissa) + 1, dtype=object)  # a cell of -1 takes the last one, which is None
        every[:-1] = as_numbers(told.mantissa, told.scale)
        return list(every[block.cells])

    @staticmethod
    def _used(cells: np.ndarray) -> tuple[Indices, Indices]:
        """The versions that cells hold, and for each cell its place among them, -1 where nothing is known."""
        used, back = np.unique(cells, return_inverse=True)
        empty = int(used[:1].sum() < 0)  # -1 comes first
        return used[empty:], back.reshape(cells.shape) - empty

    def _cards(self, block: Block, used: Indices) -> list[Provenance]:
        return cards_of(self.facts, block.told, used, self._first_filed)

    def _rows(self, block: Block, numbers: Indices, wanted: np.ndarray, exact: bool) -> pd.DataFrame:
        """Rows of the tidy table for one measure, with the number of their column: (R, 2 + 9)."""
        cells = block.cells[wanted]
        if not exact and self._over_floats(block, cells).any():
            raise UserError("a whole number over 2**53 is no float64", fix="ask for long(exact=True)")
        used, back = self._used(cells)
        place, at = np.nonzero(back >= 0)
        cards = self._cards(block, used)
        held = {name: pd.Series([getattr(card, name) for card in cards], dtype=object) for name in _CARD}
        held["sources"] = pd.Series(["; ".join(map(str, card.sources)) for card in cards], dtype=object)
        for name in ("start", "end", "filed", "first_filed"):
            held[name] = pd.to_datetime(held[name]).astype("datetime64[ns]")
        if not exact:
            held["value"] = held["value"].astype(float)
        rows = pd.DataFrame(held).take(back[place, at])
        rows.insert(0, "date", self.dates[at])
        rows.insert(0, "column", numbers[wanted][place])
        return rows
