"""The tables of a Metathesaurus beside MRCONSO, as columns of numbers: 12 bytes a row that is kept.

Columns, in order, as documented in the UMLS Reference Manual (NLM, NCBI Bookshelf NBK9685), chapter 3 "Metathesaurus -
Rich Release Format". Each row ends in `|`. A relation is read from right to left (NLM, "Relationships" in the source
release documentation): `CUI1|..|PAR|CUI2` says that CUI2 is the parent of CUI1, `isa` in RELA that CUI2 is a CUI1.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from r1core_umls.concepts import Malformed, Progress, Retirement

COLUMNS = {
    "MRCONSO.RRF": (
        *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI"),
        *("SAB", "TTY", "CODE", "STR", "SRL", "SUPPRESS", "CVF"),
    ),
    "MRSTY.RRF": ("CUI", "TUI", "STN", "STY", "ATUI", "CVF"),
    "MRREL.RRF": (
        *("CUI1", "AUI1", "STYPE1", "REL", "CUI2", "AUI2", "STYPE2", "RELA", "RUI", "SRUI"),
        *("SAB", "SL", "RG", "DIR", "SUPPRESS", "CVF"),
    ),
    "MRDEF.RRF": ("CUI", "AUI", "ATUI", "SATUI", "SAB", "DEF", "SUPPRESS", "CVF"),
    "MRCUI.RRF": ("CUI1", "VER", "REL", "RELA", "MAPREASON", "CUI2", "MAPIN"),
}
CUI = re.compile(r"C\d{7}")
_TUI = re.compile(r"T\d{3}")
UPWARD, DOWNWARD = ("PAR", "RB"), ("CHD", "RN")  # CUI2 stands above, below CUI1
UPWARD_RELA, DOWNWARD_RELA = "inverse_isa", "isa"
RETIRED = frozenset(("DEL", "SY", "RO", "RB", "RN", "SUBX"))
PROGRESS_ROWS = 20_000  # rows between two reports of progress, a few per second


@dataclass(frozen=True, slots=True)
class Filters:
    """What of a table is kept: rows of these vocabularies (all, if empty), suppressible ones too or not."""

    vocabularies: frozenset[str]
    suppressed: bool

    def keep(self, vocabulary: str, suppress: str) -> bool:
        """Whether a row of this SAB and SUPPRESS is kept."""
        return (self.suppressed or suppress == "N") and (not self.vocabularies or vocabulary in self.vocabularies)


def rows(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield `(line number, columns)`; a line that is no row comes with the reason as its only column."""
    for number, _, columns in placed_rows(path, progress):
        yield number, columns


def placed_rows(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, int, list[str]]]:
    """Yield `(line number, byte where the line begins, columns)`, as `rows` does."""
    header, stage, size = COLUMNS[path.name], f"reading {path.name}", path.stat().st_size
    width, done = len(header) + 1, 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            begin, done = done, done + len(raw)
            if progress is not None and number % PROGRESS_ROWS == 0:
                progress(stage, done, size)
            try:
                columns = raw.rstrip(b"\r\n").decode("utf-8").split("|")
            except UnicodeDecodeError as error:
                yield number, begin, [f"bytes are not UTF-8 (column {error.start + 1})"]
                continue
            if len(columns) != width or columns[-1]:
                columns = [f"{len(columns) - 1} columns, expected {len(header)} and a final |"]
            yield number, begin, columns
    if progress is not None:
        progress(stage, done, size)


@dataclass(slots=True)
class ByConcept:
    """Numbers by the number of a CUI: filled in any order, then sealed, then asked."""

    _keys: array[int] = field(default_factory=lambda: array("I"))
    _values: array[int] = field(default_factory=lambda: array("q"))
    _sorted: tuple[memoryview, memoryview] = field(default_factory=lambda: (memoryview(b""), memoryview(b"")))

    def add(self, cui: str, value: int) -> None:
        """Put a number under a CUI."""
        self._keys.append(int(cui[1:]))
        self._values.append(value)

    def seal(self) -> ByConcept:
        """Sort by CUI; numbers of one CUI keep their order."""
        keys, values = np.frombuffer(self._keys, np.uint32), np.frombuffer(self._values, np.int64)
        order = np.argsort(keys, kind="stable")
        self._sorted = keys[order].data, values[order].data
        self._keys, self._values = array("I"), array("q")
        return self

    def of(self, number: int) -> list[int]:
        """Return the numbers of a CUI, [] where it has none."""
        keys, values = self._sorted
        place = bisect_left(keys, number)
        found = []
        while place < len(keys) and keys[place] == number:
            found.append(values[place])
            place += 1
        return found


def semantic_types_of(directory: Path, malformed: Malformed, progress: Progress | None = None) -> ByConcept:
    """Read MRSTY.RRF: the TUIs of each concept, as numbers."""
    types, path = ByConcept(), directory / "MRSTY.RRF"
    for number, columns in rows(path, progress):
        if len(columns) == 1:
            malformed.add(path.name, number, columns[0])
        elif not CUI.fullmatch(columns[0]) or not _TUI.fullmatch(columns[1]):
            malformed.add(path.name, number, f"CUI and TUI are {columns[0]!r} and {columns[1]!r}, expected C.. and T..")
        else:
            types.add(columns[0], int(columns[1][1:]))
    return types.seal()


def parents_of(
    directory: Path, filters: Filters, broader: bool, malformed: Malformed, progress: Progress | None = None
) -> ByConcept:
    """Read MRREL.RRF where it is present: the parents of each concept, as numbers, each as often as it is stated.

    Parameters
    ----------
    broader : RB and RN count without an isa in RELA too.
    """
    pairs, path = array("Q"), directory / "MRREL.RRF"
    if not path.is_file():
        return ByConcept().seal()
    cui1, rel, cui2, rela, sab, suppress = map(
        COLUMNS[path.name].index, ("CUI1", "REL", "CUI2", "RELA", "SAB", "SUPPRESS")
    )
    vertical = frozenset((*UPWARD, *DOWNWARD))
    for number, columns in rows(path, progress):
        if len(columns) == 1:
            malformed.add(path.name, number, columns[0])
            continue
        relation, attribute = columns[rel], columns[rela]
        if relation not in vertical or not filters.keep(columns[sab], columns[suppress]):
            continue
        if relation in ("RB", "RN") and not broader and attribute not in (UPWARD_RELA, DOWNWARD_RELA):
            continue
        one, two = columns[cui1], columns[cui2]
        if not CUI.fullmatch(one) or not CUI.fullmatch(two):
            malformed.add(path.name, number, f"CUI1 and CUI2 are {one!r} and {two!r}, expected C and seven digits")
        elif one != two:
            child, parent = (one, two) if relation in UPWARD else (two, one)
            pairs.append(int(child[1:]) << 32 | int(parent[1:]))
    return _unique(pairs)


def _unique(pairs: array[int]) -> ByConcept:
    """Each pair once: most are stated twice, once in each direction."""
    packed = np.unique(np.frombuffer(pairs, np.uint64))
    found = ByConcept()
    found._keys.frombytes((packed >> np.uint64(32)).astype(np.uint32).tobytes())
    found._values.frombytes((packed & np.uint64(0xFFFFFFFF)).astype(np.int64).tobytes())
    return found.seal()


class Definitions:
    """The first definition of each concept in MRDEF.RRF, read from the file when asked for; a context manager."""

    def __init__(
        self, directory: Path, filters: Filters, malformed: Malformed, progress: Progress | None = None
    ) -> None:
        self._path = directory / "MRDEF.RRF"
        self._file: BinaryIO | None = None
        places = ByConcept()
        if self._path.is_file():
            self._file = self._path.open("rb")
            cui, sab, suppress = map(COLUMNS[self._path.name].index, ("CUI", "SAB", "SUPPRESS"))
            for number, begin, columns in placed_rows(self._path, progress):
                if len(columns) == 1:
                    malformed.add(self._path.name, number, columns[0])
                elif not CUI.fullmatch(columns[cui]):
                    malformed.add(self._path.name, number, f"CUI is {columns[cui]!r}, expected C and seven digits")
                elif filters.keep(columns[sab], columns[suppress]):
                    places.add(columns[cui], begin)
        self._places = places.seal()

    def __enter__(self) -> Definitions:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def of(self, number: int) -> str:
        """Return the definition of a concept, "" where it has none."""
        places = self._places.of(number)
        if not places or self._file is None:
            return ""
        self._file.seek(places[0])
        columns = self._file.readline().decode("utf-8").split("|")
        return columns[COLUMNS[self._path.name].index("DEF")].strip()


def read_retirements(directory: Path, malformed: Malformed, progress: Progress | None = None) -> Iterator[Retirement]:
    """Yield the rows of MRCUI.RRF."""
    path = directory / "MRCUI.RRF"
    cui1, rel, cui2 = map(COLUMNS[path.name].index, ("CUI1", "REL", "CUI2"))
    for number, columns in rows(path, progress):
        if len(columns) == 1:
            malformed.add(path.name, number, columns[0])
        elif not CUI.fullmatch(columns[cui1]) or (columns[cui2] and not CUI.fullmatch(columns[cui2])):
            found = f"{columns[cui1]!r} and {columns[cui2]!r}"
            malformed.add(path.name, number, f"CUI1 and CUI2 are {found}, expected C and seven digits")
        elif columns[rel] not in RETIRED:
            malformed.add(path.name, number, f"REL is {columns[rel]!r}, expected one of {', '.join(sorted(RETIRED))}")
        else:
            yield Retirement(columns[cui1], columns[rel], columns[cui2])
