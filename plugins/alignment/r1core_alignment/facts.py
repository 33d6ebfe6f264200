"""Reported facts, checked once and held in columns: what they state, of which period, and when it was filed.

Not covered: dimensions (segments, scenarios), and splits: amounts per share are what the filing stated.
"""

# N = facts, S = series (entity, concept, unit)

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_alignment.days import Days, to_datetimes
from r1core_alignment.exact import as_numbers
from r1core_alignment.periods import INSTANT

COLUMNS = ("entity", "concept", "unit", "value", "start", "end", "filed", "accession", "form")
Names = NDArray[np.object_]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Facts:
    """Facts in the order of series, length of period, end, start, filing date and accession.

    Parameters
    ----------
    series : (S,) rows of entity, concept, unit. accessions, forms : texts, in alphabetical order.
    code, kind, start, end, filed, accession, form : (N,) series, kind of period, days, and places in those texts;
        `start` is 0 for an instant.
    mantissa, scale : (N,) the value is `mantissa / 10**scale`, exactly.
    left_out : rows that are not used, with the reason.
    """

    series: pd.DataFrame
    accessions: Names
    forms: Names
    code: Codes
    kind: Codes
    start: Days
    end: Days
    filed: Days
    accession: Codes
    form: Codes
    mantissa: NDArray[np.int64]
    scale: NDArray[np.int8]
    left_out: pd.DataFrame

    def __len__(self) -> int:
        return len(self.code)

    def __repr__(self) -> str:
        entities = self.series["entity"].nunique()
        return (
            f"<Facts: {len(self)} of {entities} entities in {len(self.series)} series, {len(self.left_out)} left out>"
        )

    def frame(self) -> pd.DataFrame:
        """One row a fact, columns `COLUMNS`; `start` is NaT for an instant, `value` an int where every one is."""
        named = {name: self.series[name].to_numpy()[self.code] for name in ("entity", "concept", "unit")}
        whole = not self.scale.any()
        return pd.DataFrame(
            {
                **named,
                "value": self.mantissa if whole else as_numbers(self.mantissa, self.scale),
                "start": to_datetimes(self.start, self.kind == INSTANT),
                "end": to_datetimes(self.end),
                "filed": to_datetimes(self.filed),
                "accession": self.accessions[self.accession],
                "form": self.forms[self.form],
            }
        )

    def concepts(self) -> pd.DataFrame:
        """One row a series: how many facts, and the first and last period end and filing date."""
        frame = self.frame()
        grouped = frame.assign(instant=frame["start"].isna()).groupby(["entity", "concept", "unit"], sort=True)
        return grouped.agg(
            facts=("filed", "size"),
            instants=("instant", "sum"),
            first_end=("end", "min"),
            last_end=("end", "max"),
            last_filed=("filed", "max"),
        ).reset_index()

    def select(
        self, concepts: str | Iterable[str] | None = None, entities: str | int | Iterable[str | int] | None = None
    ) -> Facts:
        """The facts of these concepts and entities; None means all of them.

        A concept is named in full (`us-gaap:Assets`) or without its taxonomy (`Assets`, in every taxonomy that has
        it); an entity as it stands, or by its CIK.

        Raises
        ------
        UserError : for a name that no fact has.
        """
        kept = np.ones(len(self.series), bool)
        if concepts is not None:
            full = self.series["concept"].to_numpy()
            short = np.array([name.rpartition(":")[2] for name in full], dtype=object)
            kept &= _named(_listed(concepts), (full, short), "concept")
        if entities is not None:
            held = self.series["entity"].to_numpy()
            known = set(held)
            kept &= _named([entity_name(one, known) for one in _listed(entities)], (held,), "entity")
        return self._of(kept)

    def _of(self, kept: NDArray[np.bool_]) -> Facts:
        if kept.all():
            return self
        rows = kept[self.code]
        columns = ("kind", "start", "end", "filed", "accession", "form", "mantissa", "scale")
        return replace(
            self,
            series=self.series[kept].reset_index(drop=True),
            code=(np.cumsum(kept) - 1)[self.code[rows]],
            **{name: getattr(self, name)[rows] for name in columns},
        )


def entity_name(entity: str | int, known: Iterable[str]) -> str:
    """The name under which an entity is known: as it stands, or `CIK0001640147` for a CIK in digits."""
    text = str(entity).strip()
    return text if text in known or not text.isdecimal() else cik_name(text)


def cik_name(cik: str | int) -> str:
    """A CIK as the SEC names its files."""
    return f"CIK{int(cik):010d}"


def _listed(given: str | int | Iterable[str | int]) -> list[str]:
    return [str(one).strip() for one in ([given] if isinstance(given, str | int) else given)]


def _named(wanted: Sequence[str], columns: Sequence[Names], what: str) -> NDArray[np.bool_]:
    kept = np.zeros(len(columns[0]), bool)
    for name in wanted:
        found = np.any([column == name for column in columns], axis=0)
        if not found.any():
            every = sorted({str(one) for column in columns for one in column})
            near = difflib.get_close_matches(name, every, 3, 0.6)
            near += [one for one in every if name.lower() in one.lower() and ":" not in one][:3]
            raise UserError(
                f"no fact has the {what} {name!r}",
                fix=f"did you mean {' or '.join(dict.fromkeys(near))}?"
                if near
                else "facts.concepts(), or --list, names them all",
            )
        kept |= found
    return kept
