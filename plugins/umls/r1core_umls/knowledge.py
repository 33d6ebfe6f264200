"""Concepts, their names, and the index that finds a concept by a name. Torch-free, spaCy-free.

The whole base is held in memory (0.45 GB at the peak for 300,000 names), so filter a full UMLS by language
and source vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from r1core_umls.names import is_acronym, key_of, surface_keys, tokenise

Scope = Literal["EXACT", "NARROW", "BROAD", "RELATED"]
SCOPES: tuple[Scope, ...] = ("EXACT", "NARROW", "BROAD", "RELATED")  # the OBO synonym scopes, best first
MALFORMED_SHOWN = 5  # malformed lines that a report names; the rest are only counted


@dataclass(frozen=True, slots=True)
class Synonym:
    """A name besides the preferred one. `kind`: the source's own type ("abbreviation", "layperson", a UMLS SAB)."""

    text: str
    scope: Scope = "EXACT"
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Concept:
    """One concept.

    Parameters
    ----------
    id : identifier in its source (`HP:0000003`, or the CUI for UMLS).
    name : preferred name.
    cuis : UMLS concept identifiers.
    semantic_types : UMLS semantic type identifiers (`T047`); () where the source has none.
    """

    id: str
    name: str
    synonyms: tuple[Synonym, ...] = ()
    cuis: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What reading a source came to; `malformed_lines` names the first few as `file:line: reason`."""

    source: str
    rows: int = 0
    kept: int = 0
    filtered: int = 0
    malformed: int = 0
    malformed_lines: tuple[str, ...] = ()


@dataclass(slots=True)
class Malformed:
    """Counts malformed lines and names the first ones."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, file: str, number: int, reason: str) -> None:
        """Count one malformed line."""
        self.count += 1
        if len(self.lines) < MALFORMED_SHOWN:
            self.lines.append(f"{file}:{number}: {reason}")


class Source(Protocol):
    """A place that concepts are read from; `read`'s argument is told the bytes read so far."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Scopes of the synonyms to match."""
        ...

    def fingerprint(self) -> str:
        """sha256 of the source bytes and of every filter. Raises UserError where a file is missing."""
        ...

    def paths(self) -> tuple[Path, ...]:
        """The files that `read` goes through. Raises UserError where one is missing."""
        ...

    def size(self) -> int:
        """Bytes that `read` goes through."""
        ...

    def read(self, progress: Callable[[int], None] | None = None) -> tuple[list[Concept], BuildReport]:
        """All concepts that pass the filters. Raises UserError where nothing usable is found."""
        ...


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Keys to entries, as columns: entries `offsets[rows[key]]` to `offsets[rows[key] + 1]` stand under `key`.

    Per entry: `concept` (position in the base), `rank` (0 preferred name, then by scope), `surface` (the name itself),
    `exact_only` (0 or 1). `longest` : first token to the most tokens that any name beginning with it has.
    """

    rows: dict[str, int]
    offsets: list[int]
    concept: list[int]
    rank: list[int]
    surface: list[str]
    exact_only: list[int]
    longest: dict[str, int]

    def select(self, key: str, text: str) -> list[int]:
        """Return the entries that `text`, whose key is `key`, may mean: best first, each concept once.

        Best is: written exactly like the name; then preferred name before synonym, and by scope; then the smaller
        concept id. The order never depends on the order in which a source lists its names.
        """
        row = self.rows.get(key)
        if row is None:
            return []
        found: dict[int, tuple[bool, int, int, int]] = {}
        for entry in range(self.offsets[row], self.offsets[row + 1]):
            differs = self.surface[entry] != text
            if differs and self.exact_only[entry]:
                continue
            order = (differs, self.rank[entry], self.concept[entry], entry)
            known = found.get(self.concept[entry])
            if known is None or order < known:
                found[self.concept[entry]] = order
        return [order[3] for order in sorted(found.values())]


def build_index(concepts: Sequence[Concept], scopes: Iterable[Scope]) -> NameIndex:
    """Index the preferred names and the synonyms of these scopes."""
    wanted = frozenset(scopes)
    postings: dict[str, dict[tuple[int, str], tuple[int, int]]] = {}
    longest: dict[str, int] = {}
    for position, concept in enumerate(concepts):
        named: list[tuple[str, int, str]] = [(concept.name, 0, "")]
        named += [(s.text, 1 + SCOPES.index(s.scope), s.kind) for s in concept.synonyms if s.scope in wanted]
        for text, rank, kind in named:
            surface = surface_keys(text)
            if surface is None:
                continue
            exact_only = int(kind == "abbreviation" or is_acronym(surface.core))
            longest[surface.first] = max(longest.get(surface.first, 0), surface.count)
            for key in surface.keys:
                entries = postings.setdefault(key, {})
                known = entries.get((position, surface.core), (rank, exact_only))
                entries[position, surface.core] = min(known, (rank, exact_only))
    index = NameIndex({}, [0], [], [], [], [], longest)
    for row, (key, entries) in enumerate(sorted(postings.items())):
        index.rows[key] = row
        for (position, surface_text), (rank, exact_only) in sorted(entries.items()):
            index.concept.append(position)
            index.rank.append(rank)
            index.surface.append(surface_text)
            index.exact_only.append(exact_only)
        index.offsets.append(len(index.concept))
    return index


class KnowledgeBase:
    """Concepts in order of their id, with the index of their names."""

    def __init__(self, concepts: Sequence[Concept], index: NameIndex, fingerprint: str, report: BuildReport) -> None:
        self.concepts = concepts
        self.index = index
        self.report = report
        self._fingerprint = fingerprint
        self._by_id: Mapping[str, int] = {concept.id: position for position, concept in enumerate(concepts)}

    @classmethod
    def build(cls, source: Source, progress: Callable[[int], None] | None = None) -> KnowledgeBase:
        """Read a source and index it, without the cache."""
        fingerprint = source.fingerprint()
        concepts, report = source.read(progress)
        concepts.sort(key=lambda concept: concept.id)
        return cls(concepts, build_index(concepts, source.scopes), fingerprint, report)

    def fingerprint(self) -> str:
        """sha256 over the source bytes and the filters."""
        return self._fingerprint

    def names(self) -> int:
        """Return the number of names that are matched, those of different concepts counted apart."""
        return len(set(zip(self.index.concept, self.index.surface, strict=True)))

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, concept_id: str) -> Concept:
        return self.concepts[self._by_id[concept_id]]

    def lookup(self, surface: str) -> tuple[Concept, ...]:
        """Return the concepts that this surface, taken as a whole, may mean: best first, () where it is unknown."""
        keys = surface_keys(surface)
        if keys is None:
            return ()
        tokens = tokenise(surface)
        entries = self.index.select(key_of(tokens, 0, len(tokens.starts)), keys.core)
        return tuple(self.concepts[self.index.concept[entry]] for entry in entries)
