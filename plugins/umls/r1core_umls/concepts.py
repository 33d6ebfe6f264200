"""What a knowledge base is made of: concepts with their names, and the sources that they are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Scope = Literal["EXACT", "NARROW", "BROAD", "RELATED"]
SCOPES: tuple[Scope, ...] = ("EXACT", "NARROW", "BROAD", "RELATED")  # the OBO synonym scopes, best first
MALFORMED_SHOWN = 5  # malformed lines that a report names; the rest are only counted
Progress = Callable[[str, int, int], None]  # told the stage, what is done of it, and its total (bytes or rows)


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
    definition : "" where the source has none.
    parents : ids of the concepts that this one is a kind of. A base gives those that it holds, in order of id; where
        one was left out, the nearest above it.
    """

    id: str
    name: str
    synonyms: tuple[Synonym, ...] = ()
    cuis: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A concept that the filters leave out, told for its place in the hierarchy: what lies below it stays below what
    lies above it.
    """

    id: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retirement:
    """An identifier that a release dropped. `target` is "" where nothing takes its place.

    `relation` is MRCUI's REL: `SY` the same concept, `RB` a broader one, `RN` a narrower one, `RO` a related one, `DEL`
    deleted, `SUBX` left out of this subset.
    """

    id: str
    relation: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a source says of itself: its release, and the licence that things derived from it fall under.

    `licence` is "" where the source sets no terms that a derived file would have to carry.
    """

    release: str = "not stated"
    licence: str = ""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What reading a source came to; `malformed_lines` names the first few as `file:line: reason`.

    `parents` counts the is-a pairs kept, those that bridge concepts left out included; `parents_unknown` those that
    lead to nothing in the base (the root of the ontology, for instance). `notes` says which optional files were absent.
    """

    source: str
    rows: int = 0
    kept: int = 0
    filtered: int = 0
    malformed: int = 0
    malformed_lines: tuple[str, ...] = ()
    parents: int = 0
    parents_unknown: int = 0
    notes: tuple[str, ...] = ()


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

    def extend(self, other: Malformed) -> None:
        """Count those of another file as well, named after the ones here."""
        self.count += other.count
        self.lines = (self.lines + other.lines)[:MALFORMED_SHOWN]


@dataclass(slots=True)
class Tally:
    """What a source counts while it is read."""

    rows: int = 0
    kept: int = 0
    filtered: int = 0
    malformed: Malformed = field(default_factory=Malformed)
    notes: list[str] = field(default_factory=list)

    def report(self, source: str) -> BuildReport:
        """Return the counts as they stand now."""
        faults = self.malformed
        return BuildReport(
            source, self.rows, self.kept, self.filtered, faults.count, tuple(faults.lines), notes=tuple(self.notes)
        )


class Source(Protocol):
    """A place that concepts are read from, one at a time: a source never holds all of them."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Scopes of the synonyms to match."""
        ...

    def name(self) -> str:
        """The file or folder, as the user knows it."""
        ...

    def terms(self) -> Terms:
        """Release and licence."""
        ...

    def fingerprint(self, progress: Progress | None = None) -> str:
        """sha256 of the source bytes and of every filter. Raises UserError where a file is missing."""
        ...

    def paths(self) -> tuple[Path, ...]:
        """The files that are read. Raises UserError where one is missing."""
        ...

    def size(self) -> int:
        """Bytes of these files."""
        ...

    def concepts(self, tally: Tally, progress: Progress | None = None) -> Iterator[Concept | LeftOut]:
        """All concepts that pass the filters, in any order, and those that do not but have parents.

        Raises UserError where nothing usable is found.
        """
        ...

    def retirements(self, tally: Tally, progress: Progress | None = None) -> Iterable[Retirement]:
        """The identifiers that were dropped; asked for after `concepts` is exhausted."""
        ...
