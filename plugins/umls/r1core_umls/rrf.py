"""The UMLS Metathesaurus as a knowledge base, read from a user's own `MRCONSO.RRF` and `MRSTY.RRF`.

Columns, in order, as documented in the UMLS Reference Manual (NLM, NCBI Bookshelf NBK9685), chapter 3 "Metathesaurus -
Rich Release Format", tables "Concept Names and Sources (File = MRCONSO.RRF)" and "Semantic Types (File = MRSTY.RRF)".
Each row ends in `|`. Using the Metathesaurus needs a licence of the user's own; nothing of it ships here.

Not covered: relations, definitions, MRRANK (the release's own TS, STT and ISPREF carry the default ranking).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from r1core.api import UserError
from r1core_umls.knowledge import BuildReport, Concept, Malformed, Scope, Synonym

MRCONSO = (
    *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI"),
    *("SAB", "TTY", "CODE", "STR", "SRL", "SUPPRESS", "CVF"),
)
MRSTY = ("CUI", "TUI", "STN", "STY", "ATUI", "CVF")
SUPPRESS_VALUES = frozenset("NOEY")  # N: not suppressible; O: obsolete; E: by an editor; Y: by the source's term type
_CUI = re.compile(r"C\d{7}")
_TUI = re.compile(r"T\d{3}")
_CONSO = {name: position for position, name in enumerate(MRCONSO)}
PROGRESS_ROWS = 20_000  # rows between two reports of progress, a few per second


@dataclass(slots=True)
class _Names:
    """The names of one concept: text to its order of preference and its source vocabulary."""

    found: dict[str, tuple[tuple[int, bool, bool, bool, int], str]] = field(default_factory=dict)


@dataclass(frozen=True)
class RrfSource:
    """A Metathesaurus directory.

    Parameters
    ----------
    directory : folder that holds MRCONSO.RRF and MRSTY.RRF.
    languages : LAT values to keep (`ENG`, `GER`), in order of preference for the preferred name.
    vocabularies : SAB values to keep (`SNOMEDCT_US`, `MSH`); () keeps all.
    suppressed : keep names whose SUPPRESS is not N as well.
    """

    directory: Path
    languages: tuple[str, ...] = ("ENG",)
    vocabularies: tuple[str, ...] = ()
    suppressed: bool = False
    scopes: tuple[Scope, ...] = ("EXACT",)

    def paths(self) -> tuple[Path, Path]:
        """Return MRCONSO.RRF and MRSTY.RRF.

        Raises
        ------
        UserError : one does not exist.
        """
        found = self.directory / "MRCONSO.RRF", self.directory / "MRSTY.RRF"
        missing = [path.name for path in found if not path.is_file()]
        if missing:
            raise UserError(
                f"{self.directory}: {' and '.join(missing)} not found (expected a UMLS Metathesaurus in Rich Release "
                "Format)",
                fix="name the META directory of your UMLS release, e.g. r1core umls build /data/umls/2025AA/META",
            )
        return found

    def size(self) -> int:
        """Bytes of both files."""
        return sum(path.stat().st_size for path in self.paths())

    def fingerprint(self) -> str:
        """sha256 of both files' hashes and every filter."""
        digest = hashlib.sha256()
        for path in self.paths():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        filters = ["rrf", self.languages, sorted(self.vocabularies), self.suppressed, self.scopes]
        digest.update(json.dumps(filters).encode())
        return digest.hexdigest()

    def read(self, progress: Callable[[int], None] | None = None) -> tuple[list[Concept], BuildReport]:
        """Read and filter both files.

        The preferred name of a concept is its best name by language, TS = P, STT = PF, ISPREF = Y, then file order.

        Raises
        ------
        UserError : most rows are malformed, or the filters leave no name.
        """
        conso, sty = self.paths()
        malformed = Malformed()
        names: dict[str, _Names] = {}
        rows = kept = 0
        for number, columns in _rows(conso, MRCONSO, progress, 0):
            rows += 1
            reason = _fault(columns)
            if reason:
                malformed.add(conso.name, number, reason)
            elif self._wanted(columns):
                kept += 1
                _keep(names.setdefault(columns[_CONSO["CUI"]], _Names()), columns, self.languages, number)
        if malformed.count > max(1, rows) / 2:
            raise UserError(f"{malformed.lines[0]} (and {malformed.count - 1} more malformed lines; is this MRCONSO?)")
        if not names:
            raise UserError(
                f"{conso}: none of {rows} rows passes the filters languages={list(self.languages)}, "
                f"vocabularies={list(self.vocabularies)}, suppressed={self.suppressed}",
                fix="use LAT and SAB values that occur in columns 2 and 12 of MRCONSO.RRF",
            )
        faults, types = malformed.count, _semantic_types(sty, malformed, progress, conso.stat().st_size)
        concepts = [_concept(cui, entry, types.get(cui, ())) for cui, entry in names.items()]
        report = BuildReport(
            str(self.directory), rows, kept, rows - kept - faults, malformed.count, tuple(malformed.lines)
        )
        return concepts, report

    def _wanted(self, columns: list[str]) -> bool:
        if columns[_CONSO["LAT"]] not in self.languages:
            return False
        if not self.suppressed and columns[_CONSO["SUPPRESS"]] != "N":
            return False
        return not self.vocabularies or columns[_CONSO["SAB"]] in self.vocabularies


def _rows(
    path: Path, header: tuple[str, ...], progress: Callable[[int], None] | None, done: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield `(line number, columns)`; a line that is no row comes with the reason as its only column."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            done += len(raw)
            if progress is not None and number % PROGRESS_ROWS == 0:
                progress(done)
            try:
                columns = raw.rstrip(b"\r\n").decode("utf-8").split("|")
            except UnicodeDecodeError as error:
                yield number, [f"bytes are not UTF-8 (column {error.start + 1})"]
                continue
            if len(columns) != len(header) + 1 or columns[-1]:
                yield number, [f"{len(columns) - 1} columns, expected {len(header)} and a final |"]
                continue
            yield number, columns
    if progress is not None:
        progress(done)


def _fault(columns: list[str]) -> str:
    """Say what is wrong with a row of MRCONSO, "" where nothing is."""
    if len(columns) == 1:
        return columns[0]
    if not _CUI.fullmatch(columns[_CONSO["CUI"]]):
        return f"CUI is {columns[_CONSO['CUI']]!r}, expected C and seven digits"
    if not columns[_CONSO["STR"]].strip():
        return "STR is empty"
    if columns[_CONSO["SUPPRESS"]] not in SUPPRESS_VALUES:
        return f"SUPPRESS is {columns[_CONSO['SUPPRESS']]!r}, expected N, O, E or Y"
    return ""


def _keep(names: _Names, columns: list[str], languages: tuple[str, ...], number: int) -> None:
    order = (
        languages.index(columns[_CONSO["LAT"]]),
        columns[_CONSO["TS"]] != "P",
        columns[_CONSO["STT"]] != "PF",
        columns[_CONSO["ISPREF"]] != "Y",
        number,
    )
    text, vocabulary = columns[_CONSO["STR"]].strip(), columns[_CONSO["SAB"]]
    known = names.found.get(text)
    if known is None or order < known[0]:
        names.found[text] = (order, vocabulary)


def _semantic_types(
    path: Path, malformed: Malformed, progress: Callable[[int], None] | None, done: int
) -> dict[str, tuple[str, ...]]:
    types: dict[str, tuple[str, ...]] = {}
    for number, columns in _rows(path, MRSTY, progress, done):
        if len(columns) == 1:
            malformed.add(path.name, number, columns[0])
        elif not _CUI.fullmatch(columns[0]) or not _TUI.fullmatch(columns[1]):
            malformed.add(path.name, number, f"CUI and TUI are {columns[0]!r} and {columns[1]!r}, expected C.. and T..")
        else:
            types[columns[0]] = tuple(sorted({*types.get(columns[0], ()), columns[1]}))
    return types


def _concept(cui: str, names: _Names, semantic_types: tuple[str, ...]) -> Concept:
    ordered = sorted(names.found.items(), key=lambda item: item[1][0])
    synonyms = tuple(Synonym(text, "EXACT", vocabulary) for text, (_, vocabulary) in ordered[1:])
    return Concept(cui, ordered[0][0], synonyms, (cui,), semantic_types)
