"""Data set `medical/icd10_specialty`: which specialty treats a diagnosis, from the inclusion terms of ICD-10-CM.

The terms are read from the XML file inside the installed wheel `simple-icd-10-cm`, by a streaming parser and without
importing the package (its import builds a code table for seconds). A label is the chapter of the code: a coarse
stand-in for a specialty, made for classification, not for referring a patient.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from xml.parsers import expat

from r1core import api

Split = Literal["train", "val", "test"]

NAME = "medical/icd10_specialty"
TASK = "icd10_specialty"
PACKAGE = "simple_icd_10_cm"
XML_FILE = "icd10c-tabular-April-1-2026.xml"
INSTALL = "pip install simple-icd-10-cm==1.5.0"
TEMPLATE = "Which specialty treats this diagnosis?\n{term}"

# Chapters 20 (external causes) and 22 (special purposes) name no specialty. One word each, whose first tokens differ.
LABELS: Mapping[int, str] = MappingProxyType(
    {
        1: "Infection",
        2: "Cancer",
        3: "Blood",
        4: "Endocrine",
        5: "Mental",
        6: "Nerve",
        7: "Eye",
        8: "Ear",
        9: "Heart",
        10: "Respiratory",
        11: "Digestive",
        12: "Skin",
        13: "Musculoskeletal",
        14: "Urology",
        15: "Pregnancy",
        16: "Newborn",
        17: "Congenital",
        18: "Symptoms",
        19: "Trauma",
        21: "Services",
    }
)

_TRAIN, _VAL = 0.75, 0.85  # upper ends of the shares of categories: 75 % train, 10 % val, 15 % test


@dataclass(frozen=True, slots=True)
class InclusionTerm:
    """One inclusion term of the tabular list; `index` is its place among those of its code, from 0."""

    chapter: int
    code: str
    index: int
    text: str

    @property
    def category(self) -> str:
        """The three-character category, for instance `A01` of `A01.4`."""
        return self.code[:3]


def xml_path() -> Path:
    """Where the installed wheel keeps the tabular list.

    Raises
    ------
    api.UserError : when the package is absent, or carries another release of ICD-10-CM.
    """
    spec = find_spec(PACKAGE)  # of a top-level package: finds it, imports nothing
    if spec is None or spec.origin is None:
        raise api.UserError(f"data set {NAME!r} needs the package {PACKAGE!r}, which is not installed", fix=INSTALL)
    path = Path(spec.origin).parent / "data" / XML_FILE
    if not path.is_file():
        raise api.UserError(f"{path} is missing: another release of {PACKAGE!r} is installed", fix=INSTALL)
    return path


def parse_terms(xml: bytes, where: str) -> list[InclusionTerm]:
    """Every inclusion term of a code of the tabular list, in file order; `where` names the file in errors.

    Raises
    ------
    api.UserError : when the bytes are not well-formed XML.
    """
    terms: list[InclusionTerm] = []
    path: list[str] = []  # open elements, outermost first
    codes: list[str] = []  # codes of the open `diag` elements
    seen: dict[str, int] = defaultdict(int)
    text: list[str] = []
    chapter = 0

    def start(tag: str, _attributes: dict[str, str]) -> None:
        path.append(tag)
        text.clear()
        if tag == "diag":
            codes.append("")

    def end(tag: str) -> None:
        nonlocal chapter
        path.pop()
        parent = path[-1] if path else ""
        if tag == "name" and parent == "chapter":
            chapter = int("".join(text))
        elif tag == "name" and parent == "diag":
            codes[-1] = "".join(text).strip()
        elif tag == "note" and path[-2:] == ["diag", "inclusionTerm"]:  # a few stand under a block, without a code
            code = codes[-1]
            terms.append(InclusionTerm(chapter, code, seen[code], "".join(text)))
            seen[code] += 1
        elif tag == "diag":
            codes.pop()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        fix = f"pip install --force-reinstall --no-deps {INSTALL.removeprefix('pip install ')}"
        raise api.UserError(f"{where}: broken XML: {error}", fix=fix) from error
    return terms


def clean(text: str) -> str:
    """The term as shown to the model: without the qualifier `NOS` (not otherwise specified), white space collapsed."""
    return " ".join(re.sub(r",?\s*\bNOS\b", "", text).split())


def comparison_form(text: str) -> str:
    """Equal for terms that differ in case, white space or punctuation only."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def select(terms: Iterable[InclusionTerm]) -> list[InclusionTerm]:
    """Keep the terms that have one label and one category, each once, cleaned; file order.

    Ambiguity is judged over the whole tabular list: a term that also stands in a chapter without a label is dropped.
    """
    cleaned = [InclusionTerm(term.chapter, term.code, term.index, clean(term.text)) for term in terms]
    categories: dict[str, set[str]] = defaultdict(set)
    for term in cleaned:
        categories[comparison_form(term.text)].add(term.category)
    kept: dict[str, InclusionTerm] = {}
    for term in cleaned:
        form = comparison_form(term.text)
        if form and len(categories[form]) == 1 and term.chapter in LABELS:
            kept.setdefault(form, term)
    return list(kept.values())


def split_of(category: str) -> Split:
    """The split of a three-character category: SHA-256 of its name, read as a number in [0, 1)."""
    position = int.from_bytes(hashlib.sha256(category.encode()).digest()[:8], "big") / 2**64
    if position < _TRAIN:
        return "train"
    return "val" if position < _VAL else "test"


@cache
def _selected(path: Path) -> tuple[InclusionTerm, ...]:
    return tuple(select(parse_terms(path.read_bytes(), str(path))))


class Icd10Specialty:
    """The data set as r1core reads it; see `data/card.md` for its counts and its limits."""

    name = NAME
    tasks: Mapping[str, api.Task] = MappingProxyType(
        {
            TASK: api.Task(
                name=TASK,
                choices=tuple(LABELS.values()),
                cluster="category",
                description="ICD-10-CM inclusion term to the specialty of its chapter, 20 labels",
            )
        }
    )

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split in file order.

        Raises
        ------
        api.UserError : when the package that holds the terms is absent or broken.
        """
        return (_example(term) for term in _selected(xml_path()) if split_of(term.category) == split)

    def fingerprint(self) -> str:
        """SHA-256 of the XML bytes, the labels and the template of the question."""
        digest = hashlib.sha256(xml_path().read_bytes())
        digest.update(repr((sorted(LABELS.items()), TEMPLATE)).encode())
        return digest.hexdigest()


def _example(term: InclusionTerm) -> api.Example:
    label = LABELS[term.chapter]
    return api.Example(
        id=f"icd10/{term.code}/{term.index}",
        messages=(
            api.Message("user", TEMPLATE.format(term=term.text)),
            api.Message("assistant", label),
        ),
        task=TASK,
        source=NAME,
        fields={
            "term": term.text,
            "code": term.code,
            "category": term.category,
            "chapter": term.chapter,
            "label": label,
        },
    )
