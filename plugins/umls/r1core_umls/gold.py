"""Annotated texts: what a linker is measured on. JSON lines, or PubTator as public corpora use it.

JSON lines, one document each: `{"id": "d1", "text": "…", "spans": [{"start": 3, "end": 8, "concept_id": "HP:…"}]}`.
Offsets count characters, `end` is exclusive. `concept_id` may be a list where any of several is right, or absent where
only the place is known. `id` may be absent.

PubTator (Wei et al. 2013, "PubTator: a web-based text mining tool"): `PMID|t|title`, `PMID|a|abstract`, then lines of
PMID, start, end, mention, type and identifier between tabs; offsets count from the title on, one character stands
between title and abstract. Several identifiers stand between `|`, `,` or `;`; `-1` and `-` are none. Relations are
left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1core.api import UserError

FORMATS = 'JSON lines {"text", "spans": [{"start", "end", "concept_id"}]}, or PubTator'


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """Characters `[start, end)`, and the concepts that are right there; () where only the place is known."""

    start: int
    end: int
    concept_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoldDocument:
    """One annotated text."""

    id: str
    text: str
    spans: tuple[GoldSpan, ...]


class _Span(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    start: int = Field(ge=0)
    end: int
    concept_id: str | list[str] | None = None


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    id: str | int | None = None
    text: str
    spans: list[_Span]


def read_gold(path: Path) -> list[GoldDocument]:
    """Return the documents of a file; its first character tells the format.

    Raises
    ------
    UserError : the file cannot be read, holds no document, or a line (which is named) is not as the format says.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason})", fix=f"give a file of {FORMATS}") from error
    first = next((line for line in lines if line.strip()), "")
    documents = list(_json_lines(path, lines) if first.startswith("{") else _pubtator(path, lines))
    if not documents:
        raise UserError(f"{path}: no document in it", fix=f"give a file of {FORMATS}")
    return documents


def _wrong(path: Path, number: int, what: str) -> UserError:
    return UserError(f"{path}:{number}: {what}", fix=f"write {FORMATS}")


def _json_lines(path: Path, lines: list[str]) -> Iterator[GoldDocument]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = _Document.model_validate(json.loads(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][:3])) or "the line"
            raise _wrong(path, number, f"{where}: {first['msg'].lower()}") from error
        except ValueError as error:
            raise _wrong(path, number, f"not JSON ({error})") from error
        spans = []
        for span in read.spans:
            if not span.start < span.end <= len(read.text):
                told = f"span [{span.start}, {span.end}) in a text of {len(read.text)} characters"
                raise _wrong(path, number, told)
            given = span.concept_id
            spans.append(
                GoldSpan(
                    span.start, span.end, () if given is None else (given,) if isinstance(given, str) else (*given,)
                )
            )
        yield GoldDocument(str(number if read.id is None else read.id), read.text, tuple(spans))


_TEXT = re.compile(r"([^|\t]+)\|([ta])\|(.*)")


def _pubtator(path: Path, lines: list[str]) -> Iterator[GoldDocument]:
    texts: dict[str, list[str]] = {}
    spans: dict[str, list[GoldSpan]] = {}
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        if head := _TEXT.fullmatch(line):
            texts.setdefault(head[1], []).append(head[3])
            continue
        cells = line.split("\t")
        if cells[0] not in texts:
            raise _wrong(path, number, f"{line[:40]!r} is neither a text nor an annotation of one above")
        if len(cells) > 1 and not cells[1].isdigit():
            continue  # a relation between two mentions
        if len(cells) < 5 or not cells[2].isdigit():
            raise _wrong(path, number, f"{len(cells)} columns, not PMID, start, end, mention, type and identifier")
        start, end, text = int(cells[1]), int(cells[2]), "\n".join(texts[cells[0]])
        if text[start:end] != cells[3]:
            raise _wrong(path, number, f"the text has {text[start:end]!r} at {start}, the annotation {cells[3]!r}")
        told = cells[5].strip() if len(cells) > 5 else ""
        ids = tuple(
            one.strip().removeprefix("UMLS:") for one in re.split(r"[|,;]", told) if one.strip() not in ("", "-", "-1")
        )
        spans.setdefault(cells[0], []).append(GoldSpan(start, end, ids))
    for identifier, parts in texts.items():
        yield GoldDocument(identifier, "\n".join(parts), tuple(spans.get(identifier, ())))
