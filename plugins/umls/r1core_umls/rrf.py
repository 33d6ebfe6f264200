"""The UMLS Metathesaurus as a knowledge base, read from the files of a user's own release.

Needed: `MRCONSO.RRF` and `MRSTY.RRF`. Read where they are present: `MRREL.RRF` (hierarchy), `MRDEF.RRF` (definitions),
`MRCUI.RRF` (retired concepts), `release.dat` or `MRDOC.RRF` (release), `MRFILES.RRF` (columns, compared with ours).

The tables are `rrf_tables.py`'s. Using the Metathesaurus needs a licence of the user's own; nothing of it ships here.

Not covered: MRRANK (the release's own TS, STT and ISPREF carry the default ranking), MRSAT, MRHIER.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r1core.api import UserError
from r1core_umls.concepts import Concept, LeftOut, Malformed, Progress, Retirement, Scope, Synonym, Tally, Terms
from r1core_umls.hashing import file_digest
from r1core_umls.rrf_tables import (
    COLUMNS,
    CUI,
    ByConcept,
    Definitions,
    Filters,
    parents_of,
    read_retirements,
    rows,
    semantic_types_of,
)

REQUIRED = ("MRCONSO.RRF", "MRSTY.RRF")
OPTIONAL = {  # what is missing without the file
    "MRREL.RRF": "no hierarchy",
    "MRDEF.RRF": "no definitions",
    "MRCUI.RRF": "no retired concepts",
}
RELEASE_FILES = ("release.dat", "MRDOC.RRF", "MRFILES.RRF")
SUPPRESS_VALUES = frozenset("NOEY")  # N: not suppressible; O: obsolete; E: by an editor; Y: by the source's term type
_CUI, _LAT, _TS, _STT, _ISPREF, _SAB, _STR, _SUPPRESS = map(
    COLUMNS["MRCONSO.RRF"].index, ("CUI", "LAT", "TS", "STT", "ISPREF", "SAB", "STR", "SUPPRESS")
)
_TUI = re.compile(r"T\d{3}")
Names = dict[str, tuple[tuple[int, bool, bool, bool, int], str]]  # text to its order of preference and its vocabulary


@dataclass(frozen=True)
class RrfSource:
    """A Metathesaurus directory.

    Parameters
    ----------
    directory : folder that holds MRCONSO.RRF and MRSTY.RRF.
    languages : LAT values to keep (`ENG`, `GER`, `CHI`), in order of preference for the preferred name.
    vocabularies : SAB values to keep (`SNOMEDCT_US`, `MSH`), for names, relations and definitions; () keeps all.
    suppressed : keep names, relations and definitions whose SUPPRESS is not N as well.
    semantic_types : keep concepts that have one of these TUIs (`T047`); () keeps all.
    broader : count every RB and RN as is-a too, not only PAR, CHD and what RELA calls isa.
    """

    directory: Path
    languages: tuple[str, ...] = ("ENG",)
    vocabularies: tuple[str, ...] = ()
    suppressed: bool = False
    scopes: tuple[Scope, ...] = ("EXACT",)
    semantic_types: tuple[str, ...] = ()
    broader: bool = False

    def name(self) -> str:
        """The directory."""
        return str(self.directory)

    def paths(self) -> tuple[Path, ...]:
        """Return MRCONSO.RRF, MRSTY.RRF, and those of the other files that are present.

        Raises
        ------
        UserError : one of the first two does not exist.
        """
        missing = [name for name in REQUIRED if not (self.directory / name).is_file()]
        if missing:
            raise UserError(
                f"{self.directory}: {' and '.join(missing)} not found (expected a UMLS Metathesaurus in Rich Release "
                "Format)",
                fix="name the META directory of your UMLS release, e.g. r1core umls build /data/umls/2025AA/META",
            )
        names = (*REQUIRED, *OPTIONAL, *RELEASE_FILES)
        return tuple(self.directory / name for name in names if (self.directory / name).is_file())

    def size(self) -> int:
        """Bytes of these files."""
        return sum(path.stat().st_size for path in self.paths())

    def terms(self) -> Terms:
        """Return the release as `release.dat` or MRDOC states it, and the licence of the Metathesaurus."""
        release = self._release()
        return Terms(
            release,
            f"UMLS Metathesaurus, release {release}: licensed data. Whoever receives it, or a file from which it can "
            "be recovered, needs a UMLS licence; single vocabularies set further terms (SRL in MRCONSO.RRF).",
        )

    def _release(self) -> str:
        properties, documents = self.directory / "release.dat", self.directory / "MRDOC.RRF"
        if properties.is_file():
            for line in properties.read_text("utf-8", errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "umls.release.name" and value.strip():
                    return value.strip()
        if documents.is_file():
            with documents.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("RELEASE|umls.release.name|"):
                        return line.split("|")[3].strip() or Terms().release
        return Terms().release

    def fingerprint(self, progress: Progress | None = None) -> str:
        """sha256 of every file's name and hash, and every filter."""
        digest = hashlib.sha256()
        for path in self.paths():
            digest.update(path.name.encode() + file_digest(path, progress))
        filters = (self.languages, sorted(self.vocabularies), self.suppressed, self.scopes)
        digest.update(json.dumps(["rrf", *filters, sorted(self.semantic_types), self.broader]).encode())
        return digest.hexdigest()

    def concepts(self, tally: Tally, progress: Progress | None = None) -> Iterator[Concept | LeftOut]:
        """All concepts that have a name left, in the order of MRCONSO, and those that have none but parents.

        The preferred name of a concept is its best name by language, TS = P, STT = PF, ISPREF = Y, then file order.

        Raises
        ------
        UserError : MRFILES lists other columns, most rows are malformed, or the filters leave no name.
        """
        self._check_columns()
        later = Malformed()
        tally.notes += [f"{name} is absent: {then}" for name, then in OPTIONAL.items() if not self._has(name)]
        types = semantic_types_of(self.directory, later, progress)
        filters = Filters(frozenset(self.vocabularies), self.suppressed)
        parents = parents_of(self.directory, filters, self.broader, later, progress)
        with Definitions(self.directory, filters, later, progress) as definitions:
            for cui, names in self._groups(tally, types, progress):
                number = int(cui[1:])
                above = tuple(f"C{parent:07d}" for parent in parents.of(number))
                if not names:
                    if above:
                        yield LeftOut(cui, above)
                    continue
                ordered = sorted(names.items(), key=lambda item: item[1][0])
                yield Concept(
                    cui,
                    ordered[0][0],
                    tuple(Synonym(text, "EXACT", vocabulary) for text, (_, vocabulary) in ordered[1:]),
                    (cui,),
                    tuple(f"T{tui:03d}" for tui in sorted(set(types.of(number)))),
                    definitions.of(number),
                    above,
                )
        tally.malformed.extend(later)

    def retirements(self, tally: Tally, progress: Progress | None = None) -> Iterator[Retirement]:
        """The rows of MRCUI.RRF."""
        if self._has("MRCUI.RRF"):
            yield from read_retirements(self.directory, tally.malformed, progress)

    def _has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def _groups(self, tally: Tally, types: ByConcept, progress: Progress | None) -> Iterator[tuple[str, Names]]:
        """Yield the names of one concept at a time, none where all are filtered; its rows stand together."""
        malformed, path = tally.malformed, self.directory / "MRCONSO.RRF"
        wanted = frozenset(int(tui[1:]) for tui in self.semantic_types)
        current, names, keeps = "", Names(), True
        for number, columns in rows(path, progress):
            tally.rows += 1
            reason = _fault(columns)
            if reason:
                malformed.add(path.name, number, reason)
                continue
            if columns[_CUI] != current:
                if current:
                    yield current, names
                current, names = columns[_CUI], {}
                keeps = not wanted or not wanted.isdisjoint(types.of(int(current[1:])))
            if keeps and self._wanted(columns):
                tally.kept += 1
                _keep(names, columns, self.languages, number)
        if current:
            yield current, names
        tally.filtered = tally.rows - tally.kept - malformed.count
        self._refuse(tally, path)

    def _wanted(self, columns: list[str]) -> bool:
        if columns[_LAT] not in self.languages:
            return False
        if not self.suppressed and columns[_SUPPRESS] != "N":
            return False
        return not self.vocabularies or columns[_SAB] in self.vocabularies

    def _refuse(self, tally: Tally, path: Path) -> None:
        lines, count = tally.malformed.lines, tally.malformed.count
        if count > max(1, tally.rows) / 2:
            raise UserError(f"{lines[0]} (and {count - 1} more malformed lines; is this MRCONSO?)")
        if not tally.kept:
            types = f", semantic_types={list(self.semantic_types)}" if self.semantic_types else ""
            raise UserError(
                f"{path}: none of {tally.rows} rows passes the filters languages={list(self.languages)}, "
                f"vocabularies={list(self.vocabularies)}, suppressed={self.suppressed}{types}",
                fix="use LAT and SAB values that occur in columns 2 and 12 of MRCONSO.RRF, and TUIs of MRSTY.RRF",
            )

    def _check_columns(self) -> None:
        """Compare MRFILES with the columns that are read here, for the files that are present."""
        for tui in self.semantic_types:
            if not _TUI.fullmatch(tui):
                raise UserError(f"semantic type {tui!r} is not a TUI", fix="write T and three digits, e.g. T047")
        if not self._has("MRFILES.RRF"):
            return
        for line in (self.directory / "MRFILES.RRF").read_text("utf-8", errors="replace").splitlines():
            name, _, rest = line.partition("|")
            stated = tuple(rest.split("|")[1].split(",")) if rest.count("|") > 1 else ()
            if name in COLUMNS and self._has(name) and stated != COLUMNS[name]:
                raise UserError(
                    f"{self.directory / 'MRFILES.RRF'}: {name} has the columns {','.join(stated)}, expected "
                    f"{','.join(COLUMNS[name])}",
                    fix="write the release again in Rich Release Format, with every column",
                )


def _fault(columns: list[str]) -> str:
    """Say what is wrong with a row of MRCONSO, "" where nothing is."""
    if len(columns) == 1:
        return columns[0]
    if not CUI.fullmatch(columns[_CUI]):
        return f"CUI is {columns[_CUI]!r}, expected C and seven digits"
    if not columns[_STR].strip():
        return "STR is empty"
    if columns[_SUPPRESS] not in SUPPRESS_VALUES:
        return f"SUPPRESS is {columns[_SUPPRESS]!r}, expected N, O, E or Y"
    return ""


def _keep(names: Names, columns: list[str], languages: tuple[str, ...], number: int) -> None:
    order = (
        languages.index(columns[_LAT]),
        columns[_TS] != "P",
        columns[_STT] != "PF",
        columns[_ISPREF] != "Y",
        number,
    )
    text = columns[_STR].strip()
    known = names.get(text)
    if known is None or order < known[0]:
        names[text] = (order, columns[_SAB])
