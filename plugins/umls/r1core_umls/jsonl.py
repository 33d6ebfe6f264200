"""A knowledge base from JSONL: one concept a line, in our own form or in that of scispaCy's knowledge bases.

    {"id": "X:1", "name": "Fever", "synonyms": ["Pyrexia", {"text": "Hot", "scope": "BROAD", "kind": "layperson"}],
     "cuis": ["C0015967"], "semantic_types": ["T184"], "definition": "…", "parents": ["X:0"]}
    {"concept_id": "C0015967", "canonical_name": "Fever", "aliases": ["Pyrexia"], "types": ["T184"], "definition": "…"}

Only id and name are needed. A line `{"release": "…", "licence": "…"}` says what the file is; `write_jsonl` writes it
first, so a base that falls under a licence keeps it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from r1core.api import UserError
from r1core_umls.concepts import SCOPES, Concept, LeftOut, Progress, Retirement, Scope, Synonym, Tally, Terms
from r1core_umls.hashing import file_digest

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase

KEYS = ("id", "name", "synonyms", "cuis", "semantic_types", "definition", "parents")
SCISPACY = {"concept_id": "id", "canonical_name": "name", "aliases": "synonyms", "types": "semantic_types"}
HEADER = ("release", "licence")
HEADER_LINES = 10  # the header stands in one of the first lines
PROGRESS_ROWS = 20_000
_CUI = re.compile(r"C\d{7}")


@dataclass(frozen=True)
class JsonlSource:
    """A JSONL file.

    Parameters
    ----------
    file : one concept a line.
    scopes : synonyms of these scopes are matched.
    vocabularies : keep synonyms of these kinds; () keeps all. The preferred name is always kept.
    semantic_types : keep concepts that have one of these; () keeps all.
    """

    file: Path
    scopes: tuple[Scope, ...] = ("EXACT",)
    vocabularies: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()

    def name(self) -> str:
        """The file."""
        return str(self.file)

    def paths(self) -> tuple[Path, ...]:
        """The file.

        Raises
        ------
        UserError : it does not exist.
        """
        if not self.file.is_file():
            raise UserError(
                f"{self.file}: no such file (expected concepts as JSONL)",
                fix='write one concept a line: {"id": "X:1", "name": "Fever", "synonyms": ["Pyrexia"]}',
            )
        return (self.file,)

    def size(self) -> int:
        """Bytes of the file."""
        return self.paths()[0].stat().st_size

    def terms(self) -> Terms:
        """Release and licence, where one of the first lines states them."""
        with self.paths()[0].open(encoding="utf-8", errors="replace") as file:
            for _, line in zip(range(HEADER_LINES), file, strict=False):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if _is_header(row):
                    return Terms(str(row.get("release") or Terms().release), str(row.get("licence", "")))
        return Terms()

    def fingerprint(self, progress: Progress | None = None) -> str:
        """sha256 of the file's hash and the filters."""
        digest = hashlib.sha256(file_digest(self.paths()[0], progress))
        filters = (self.scopes, sorted(self.vocabularies), sorted(self.semantic_types))
        digest.update(json.dumps(["jsonl", *filters]).encode())
        return digest.hexdigest()

    def concepts(self, tally: Tally, progress: Progress | None = None) -> Iterator[Concept | LeftOut]:
        """All concepts that pass the filters, in the order of the file, and the parents of those that do not.

        Raises
        ------
        UserError : most lines are malformed, or none is left.
        """
        path, size, done = self.paths()[0], self.size(), 0
        malformed = tally.malformed
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                done += len(raw)
                if progress is not None and number % PROGRESS_ROWS == 0:
                    progress(f"reading {path.name}", done, size)
                concept = _read(raw)
                if concept is None:
                    continue
                tally.rows += 1
                if isinstance(concept, str):
                    malformed.add(path.name, number, concept)
                elif self.semantic_types and set(self.semantic_types).isdisjoint(concept.semantic_types):
                    tally.filtered += 1
                    yield LeftOut(concept.id, concept.parents)
                else:
                    tally.kept += 1
                    yield self._filtered(concept)
        if malformed.count > max(1, tally.rows) / 2:
            raise UserError(f"{malformed.lines[0]} (and {malformed.count - 1} more malformed lines)")
        if not tally.kept:
            raise UserError(
                f"{path}: none of {tally.rows} concepts passes semantic_types={list(self.semantic_types)}",
                fix="use semantic types that occur in the file",
            )

    def retirements(self, tally: Tally, progress: Progress | None = None) -> Iterable[Retirement]:
        """None: the format has no place for them."""
        return ()

    def _filtered(self, concept: Concept) -> Concept:
        if not self.vocabularies:
            return concept
        kept = tuple(synonym for synonym in concept.synonyms if synonym.kind in self.vocabularies)
        return Concept(**{field: getattr(concept, field) for field in KEYS} | {"synonyms": kept})


def write_jsonl(base: KnowledgeBase, path: Path) -> None:
    """Write a base as JSONL, its release and licence first."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"release": base.release, "licence": base.licence}, ensure_ascii=False) + "\n")
        for concept in base.concepts:
            file.write(json.dumps(asdict(concept), ensure_ascii=False) + "\n")


def _is_header(row: object) -> bool:
    return isinstance(row, dict) and bool(row) and row.keys() <= set(HEADER)


def _read(raw: bytes) -> Concept | str | None:
    """Return the concept of a line, what is wrong with it, or None where it is blank or a header."""
    if not raw.strip():
        return None
    try:
        row = json.loads(raw)
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is text that no file can hold
    except UnicodeError:
        return "text is not UTF-8"
    except ValueError as error:
        return f"not JSON ({error})"
    if _is_header(row):
        return None
    return _concept(row) if isinstance(row, dict) else "not a JSON object"


def _concept(row: dict[str, object]) -> Concept | str:
    values = {SCISPACY.get(key, key): value for key, value in row.items()}
    unknown = sorted(values.keys() - set(KEYS))
    if unknown:
        return f"unknown keys {', '.join(unknown)}; known are {', '.join(KEYS)}"
    identifier, name = values.get("id"), values.get("name")
    if not _is_text(identifier) or not _is_text(name):
        return "`id` and `name` are needed, as text"
    synonyms = _synonyms(values.get("synonyms") or [])
    if isinstance(synonyms, str):
        return synonyms
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("cuis", "semantic_types", "parents"):
        found = values.get(key) or []
        if not isinstance(found, list) or not all(map(_is_text, found)):
            return f"`{key}` is not a list of texts"
        lists[key] = tuple(sorted(set(found)))
    if not lists["cuis"] and _CUI.fullmatch(str(identifier)):
        lists["cuis"] = (str(identifier),)
    definition = values.get("definition") or ""
    if not isinstance(definition, str):
        return "`definition` is not a text"
    return Concept(str(identifier), str(name).strip(), synonyms, definition=definition, **lists)


def _synonyms(rows: object) -> tuple[Synonym, ...] | str:
    if not isinstance(rows, list):
        return "`synonyms` is not a list"
    synonyms: dict[Synonym, None] = {}
    for row in rows:
        told = {"text": row} if isinstance(row, str) else row
        if not isinstance(told, dict) or not told.keys() <= {"text", "scope", "kind"} or not _is_text(told.get("text")):
            return f"synonym {row!r} is neither a text nor an object of text, scope and kind"
        scope, kind = told.get("scope", "EXACT"), told.get("kind", "")
        if scope not in SCOPES or not isinstance(kind, str):
            return f"synonym {row!r}: scope is one of {', '.join(SCOPES)}, kind is a text"
        synonyms[Synonym(told["text"].strip(), cast(Scope, scope), kind)] = None
    return tuple(synonyms)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
