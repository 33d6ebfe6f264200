"""`evaluation/summary.json`: a list of `{task, system, metric, value, se, n}`, and the paired comparisons beside it.

The layout is kept by later versions. A standard error that cannot be known (fewer than two clusters) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from r1core.api import JSON, UserError
from r1core.evaluate.metrics import Estimate
from r1core.runs.files import write_json

CONSTRAINED = "+constrained"
"""Suffix of a system whose answers were limited to the label set."""
SYSTEMS = ("majority", "tfidf", "base", "adapted")
"""The systems that are compared, from the cheapest to the adapted model."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one system; `value` and `se` are fractions, `n` counts rows, `se` is NaN where unknown."""

    task: str
    system: str
    metric: str
    value: float
    se: float
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of `system` minus that of `against` on the same rows, with the paired standard error."""

    task: str
    system: str
    against: str
    metric: str
    value: float
    se: float
    n: int


Record = TypeVar("Record", Row, Comparison)


def row(task: str, system: str, metric: str, estimate: Estimate) -> Row:
    """Return an estimate as a row of the summary."""
    return Row(task, system, metric, estimate.value, estimate.se, estimate.n)


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as a JSON list, whole or not at all."""
    write_json(path, to_json(rows))


def read_summary(path: Path) -> list[Row]:
    """Read what `write_summary` wrote.

    Raises
    ------
    UserError : naming the file and the row, when it has another layout.
    """
    return _read(path, Row)


def write_comparisons(path: Path, rows: Sequence[Comparison]) -> None:
    """Write the comparisons as a JSON list, whole or not at all."""
    write_json(path, to_json(rows))


def read_comparisons(path: Path) -> list[Comparison]:
    """Read what `write_comparisons` wrote; raises as `read_summary`."""
    return _read(path, Comparison)


def to_json(rows: Iterable[Row] | Iterable[Comparison]) -> list[Mapping[str, JSON]]:
    """Return rows as JSON objects, an unknown standard error as null."""
    return [asdict(r) | {"se": None if math.isnan(r.se) else r.se} for r in rows]


def find(rows: Iterable[Row], system: str, metric: str, task: str | None = None) -> Row | None:
    """Return the row of this system and metric (of this task, or the first), or None."""
    return next(
        (r for r in rows if r.system == system and r.metric == metric and task in (None, r.task)),
        None,
    )


def _read(path: Path, kind: type[Record]) -> list[Record]:
    again = "evaluate the run again"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: broken JSON: {error.msg}", fix=again) from error
    if not isinstance(listed, list):
        raise UserError(f"{path}: expected a list, found {type(listed).__name__}", fix=again)
    wanted, found = set(kind.__slots__), []
    for number, record in enumerate(listed, 1):
        if not isinstance(record, dict) or set(record) != wanted:
            raise UserError(f"{path}: entry {number}: expected the keys {sorted(wanted)}", fix=again)
        found.append(kind(**(record | {"se": math.nan if record["se"] is None else record["se"]})))
    return found
