"""How well a linker finds spans and concepts: precision, recall and F1, each with a 95 % interval over documents.

Counts are summed over all documents (micro average). The interval is the percentile bootstrap (Efron & Tibshirani 1993,
"An introduction to the bootstrap", section 13.3): documents are drawn with replacement, because mentions of one
document are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls.gold import GoldDocument

DRAWS, LEVEL = 1000, 0.95
Answer = tuple[int, int, str]  # characters [start, end), concept id
COUNTED = ("spans, exact", "spans, overlapping", "mentions, exact", "mentions, overlapping", "concepts of a document")


@dataclass(frozen=True, slots=True)
class Figure:
    """A fraction in [0, 1] and its 95 % interval; all are NaN where nothing was to be counted."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """`right` of `found` (precision) and of `wanted` (recall).

    The two may count differently: of overlapping spans, several found may meet one that is wanted.
    """

    precision: Figure
    recall: Figure
    f1: Figure


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a set of documents. `recall_at` : of gold mentions, by k. `ranked_by` : what ranked their concepts."""

    documents: int
    gold_mentions: int
    found_mentions: int
    unknown_concepts: int
    scores: Mapping[str, Scores]
    recall_at: Mapping[int, Figure]
    ranked_by: str = ""

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON; NaN as null."""
        return _json(asdict(self))  # type: ignore[return-value]


def evaluate(
    documents: Sequence[GoldDocument],
    answers: Sequence[Sequence[Answer]],
    current: Callable[[str], str],
    ranked: Sequence[Sequence[Sequence[str]]] = (),
    ks: Sequence[int] = (1, 5),
    known: Callable[[str], bool] = lambda _: True,
) -> Evaluation:
    """Compare answers with gold documents.

    Parameters
    ----------
    answers : of each document.
    current : a concept id, or the one that took its place.
    ranked : of each document, for each gold span, the concept ids that its mention may mean, best first.
    known : whether a base holds a concept; gold mentions of others are counted, and stay wrong.
    """
    gold = [[(s.start, s.end, {current(one) for one in s.concept_ids}) for s in d.spans] for d in documents]
    # (documents, counted, 4): right of those found, found, right of those wanted, wanted
    counts = np.array([_counts(found, wanted) for found, wanted in zip(answers, gold, strict=True)], float)
    draws = np.random.default_rng(0).integers(0, len(documents), (DRAWS, len(documents)))
    drawn = np.stack([counts[draw].sum(0) for draw in draws])
    total = counts.sum(0)
    scores = {name: _scores(total[at], drawn[:, at]) for at, name in enumerate(COUNTED)}
    recall_at = {}
    for k in ks if ranked else ():
        hits = np.array([_hits(lists, wanted, k) for lists, wanted in zip(ranked, gold, strict=True)], float)
        recall_at[k] = _figure(_ratio, hits.sum(0), np.stack([hits[draw].sum(0) for draw in draws]))
    return Evaluation(
        len(documents),
        sum(map(len, gold)),
        sum(map(len, answers)),
        sum(bool(ids) and not any(map(known, ids)) for spans in gold for _, _, ids in spans),
        scores,
        recall_at,
    )


Wanted = Sequence[tuple[int, int, set[str]]]


def _counts(found: Sequence[Answer], wanted: Wanted) -> list[tuple[int, int, int, int]]:
    named = [(start, end, ids) for start, end, ids in wanted if ids]  # those without a concept count as spans only
    return [
        _matched(found, wanted, lambda a, b: a[:2] == b[:2]),
        _matched(found, wanted, _overlap),
        _matched(found, named, lambda a, b: a[:2] == b[:2] and a[2] in b[2]),
        _matched(found, named, lambda a, b: _overlap(a, b) and a[2] in b[2]),
        _concepts(found, named),
    ]


def _overlap(one: Answer, other: tuple[int, int, set[str]]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _matched(
    found: Sequence[Answer], wanted: Wanted, same: Callable[[Answer, tuple[int, int, set[str]]], bool]
) -> tuple[int, int, int, int]:
    right = sum(any(same(one, other) for other in wanted) for one in found)
    met = sum(any(same(one, other) for one in found) for other in wanted)
    return right, len(found), met, len(wanted)


def _concepts(found: Sequence[Answer], wanted: Wanted) -> tuple[int, int, int, int]:
    """Of the concepts found anywhere in a document, and of the sets of acceptable concepts wanted anywhere in it."""
    ids, sets = {one[2] for one in found}, {frozenset(names) for _, _, names in wanted}
    right = sum(any(one in names for names in sets) for one in ids)
    return right, len(ids), sum(not ids.isdisjoint(names) for names in sets), len(sets)


def _hits(ranked: Sequence[Sequence[str]], wanted: Wanted, k: int) -> tuple[int, int]:
    named = [(row, ids) for row, (_, _, ids) in zip(ranked, wanted, strict=True) if ids]
    return sum(not ids.isdisjoint(row[:k]) for row, ids in named), len(named)


Array = NDArray[np.float64]


def _scores(total: Array, drawn: Array) -> Scores:
    return Scores(
        _figure(lambda c: _ratio(c[..., :2]), total, drawn),
        _figure(lambda c: _ratio(c[..., 2:]), total, drawn),
        _figure(_f1, total, drawn),
    )


def _figure(of: Callable[[Array], Array], total: Array, drawn: Array) -> Figure:
    values = of(drawn)
    if np.isnan(values).all():
        return Figure(float(of(total)), np.nan, np.nan)
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(float(of(total)), float(low), float(high))


def _ratio(counts: Array) -> Array:
    """Right of all, (…, 2) to (…); NaN where there are none."""
    return np.divide(counts[..., 0], counts[..., 1], out=np.full(counts.shape[:-1], np.nan), where=counts[..., 1] > 0)


def _f1(counts: Array) -> Array:
    """Harmonic mean of precision and recall; 0 where nothing is right, NaN where nothing was found or wanted."""
    precision, recall = _ratio(counts[..., :2]), _ratio(counts[..., 2:])
    there = (counts[..., 1] + counts[..., 3]) > 0
    both = np.nan_to_num(precision) + np.nan_to_num(recall)
    product = 2 * np.nan_to_num(precision) * np.nan_to_num(recall)
    value = np.divide(product, both, out=np.zeros_like(both), where=both > 0)
    return np.where(there, value, np.nan)


def _json(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value
