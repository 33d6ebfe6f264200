"""Recall on names that the dictionary does not hold, of concepts that the encoder has never seen.

A fifth of the concepts, chosen by the hash of their id, is asked about. Of each that has a synonym left once names are
normalised, one (which one, the seed says) leaves the dictionary and is the query; the concept's other names stay in the
dictionary, and none of its names trains the encoder. Choices of how to train are made on another fifth.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from r1core_umls.concepts import Concept
from r1core_umls.names import tokenise

FOLDS = 10
TEST, DEVELOPMENT = (0, 1), (2, 3)
Part = Literal["test", "development"]


@dataclass(frozen=True)
class HeldOut:
    """One split.

    concepts : ids. names, owners : what the dictionary holds, and whose each name is (position in `concepts`).
    queries, answers : mentions, and the concept of each. taught, teachers : names that the encoder may learn from, and
    the concept of each. definitions, parents : of every concept, parents by position.
    """

    concepts: tuple[str, ...]
    names: tuple[str, ...]
    owners: tuple[int, ...]
    queries: tuple[str, ...]
    answers: tuple[int, ...]
    taught: tuple[str, ...]
    teachers: tuple[int, ...]
    definitions: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]


def held_out(concepts: Iterable[Concept], seed: int, part: Part = "test") -> HeldOut:
    """Split concepts; those that share their first UMLS identifier are one.

    The dictionary holds the concepts that have such an identifier; the encoder may learn from the others as well. For
    `development`, it does not learn from the concepts of the test either. Abbreviations are left out: they are matched
    letter for letter, not by what they mean.
    """
    asked = TEST if part == "test" else DEVELOPMENT
    unseen = {*asked, *TEST}
    draw, merged = random.Random(seed), _merged(concepts)
    names, queries, taught = _Named(), _Named(), _Named()
    for number, (key, one) in enumerate(merged.items()):
        fold, left = fold_of(key), list(one.names.values())
        if one.coded and fold in asked and len(left) > 1:
            queries.add([left.pop(draw.randrange(1, len(left)))], number)
        if one.coded:
            names.add(left, number)
        if fold not in unseen:
            taught.add(left, number)
    place = {concept_id: number for number, one in enumerate(merged.values()) for concept_id in one.ids}
    parents = tuple(tuple(place[up] for up in one.parents if up in place) for one in merged.values())
    definitions = tuple(one.definition for one in merged.values())
    return HeldOut(tuple(merged), *names.columns(), *queries.columns(), *taught.columns(), definitions, parents)


@dataclass
class _Merged:
    """Concepts that share an identifier. `names` : normal form to spelling, the preferred one first."""

    coded: bool
    ids: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    definition: str = ""
    parents: tuple[str, ...] = ()


class _Named:
    """Names and, of each, the number of its concept."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers: list[int] = []

    def add(self, names: Sequence[str], number: int) -> None:
        self.names += names
        self.numbers += [number] * len(names)

    def columns(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return tuple(self.names), tuple(self.numbers)


def _merged(concepts: Iterable[Concept]) -> dict[str, _Merged]:
    """Concepts by their first UMLS identifier, or by their own where they have none (`coded` is false then)."""
    merged: dict[str, _Merged] = {}
    for concept in concepts:
        key = concept.cuis[0] if concept.cuis else concept.id
        one = merged.setdefault(key, _Merged(bool(concept.cuis)))
        one.ids.append(concept.id)
        one.definition, one.parents = one.definition or concept.definition, one.parents or concept.parents
        for name in (concept.name, *(s.text for s in concept.synonyms if s.kind != "abbreviation")):
            one.names.setdefault(" ".join(tokenise(name).norms), name)
    return merged


def fold_of(concept_id: str) -> int:
    """Return the fold of a concept, 0 to 9; the same on every machine."""
    return int(hashlib.sha256(concept_id.encode()).hexdigest(), 16) % FOLDS


def recall(ranked: Sequence[Sequence[int]], answers: Sequence[int], k: int) -> float:
    """Return the fraction of queries whose concept is among the first `k`.

    ranked : concepts of each query, best first.
    """
    return sum(answer in row[:k] for row, answer in zip(ranked, answers, strict=True)) / len(answers)
