"""Micro- and macro-averaged precision, recall and F1 over labelled rows, figures of real and of generated text apart.

A row is a line of JSON: `{"text": ..., "types": ["group/type", ...], "origin": "real" | "generated"}`, `types` empty
where the text reports nothing. The two origins are never pooled, and a row that does not say its origin is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from r1core.api import JSON, UserError

Origin = Literal["real", "generated"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with the types that it reports."""

    text: str
    types: frozenset[str]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Scores:
    """Fractions; a precision without predictions and a recall without gold types are 0.

    Macro figures are means over the types that stand in the gold or in the predictions.
    """

    rows: int
    types: int
    precision: float
    recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float

    def as_json(self) -> JSON:
        """The figures as JSON."""
        return asdict(self)


def read(path: Path, known: Collection[str]) -> list[Labelled]:
    """Read labelled rows. Raises UserError with the line of the first row that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}", fix="name a file of JSON lines in UTF-8") from error
    rows = [_row(line, f"{path}:{number}", known) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{path}: holds no rows", fix='write a row: {"text": "...", "types": [], "origin": "real"}')
    return rows


def _row(line: str, at: str, known: Collection[str]) -> Labelled:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{at}: is no JSON: {error}", fix="write one JSON object a line") from error
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
        raise UserError(f"{at}: has no text", fix='write {"text": "...", "types": [...], "origin": "real"}')
    types = row.get("types")
    if not isinstance(types, list) or not all(isinstance(one, str) for one in types):
        raise UserError(f"{at}: types is {types!r}", fix="write a list of full ids, [] for no event")
    for one in types:
        if one not in known:
            raise UserError(f"{at}: no event type {one!r}", fix="list them: r1core events list")
    if row.get("origin") not in get_args(Origin):
        raise UserError(
            f"{at}: origin is {row.get('origin')!r}",
            fix='say where the text is from: "origin": "real" or "generated"; their figures are never pooled',
        )
    return Labelled(row["text"], frozenset(types), row["origin"])


def by_origin(rows: Sequence[Labelled], tag: Callable[[str], Collection[str]]) -> dict[Origin, Scores]:
    """The scores of each origin that there are rows of."""
    found: dict[Origin, Scores] = {}
    for origin in get_args(Origin):
        own = [row for row in rows if row.origin == origin]
        if own:
            found[origin] = score([row.types for row in own], [frozenset(tag(row.text)) for row in own])
    return found


def score(gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> Scores:
    """Micro and macro figures of sets of types. Raises ValueError where there are not as many of both."""
    hits: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for known, found in zip(gold, predicted, strict=True):
        known, found = set(known), set(found)
        hits.update(known & found)
        wrong.update(found - known)
        missed.update(known - found)
    every = sorted({*hits, *wrong, *missed})
    each = [_prf(hits[one], wrong[one], missed[one]) for one in every]
    micro = _prf(hits.total(), wrong.total(), missed.total())
    macro = tuple(_mean(one[place] for one in each) for place in range(3))
    return Scores(len(gold), len(every), *micro, *macro)


def _prf(hits: int, wrong: int, missed: int) -> tuple[float, float, float]:
    return (
        hits / (hits + wrong) if hits + wrong else 0.0,
        hits / (hits + missed) if hits + missed else 0.0,
        2 * hits / (2 * hits + wrong + missed) if hits + wrong + missed else 0.0,
    )


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept) if kept else 0.0


def calibration_error(probabilities: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, eq. 3), a fraction."""
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [n for n, p in enumerate(probabilities) if low < p <= high or (number == 0 and p == 0.0)]
        if inside:
            gap = sum(probabilities[n] for n in inside) - sum(right[n] for n in inside)
            total += abs(gap)
    return total / len(probabilities) if probabilities else 0.0
