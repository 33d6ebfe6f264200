"""Reads the tabular list of ICD-10-CM: the inclusion terms of codes and the titles of categories.

It is the XML file inside the installed wheel `simple-icd-10-cm`, read by a streaming parser and without importing the
package (its import builds a code table for seconds). Notes, exclusions and the titles of longer codes are not read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.parsers import expat

from r1core import api

PACKAGE = "simple_icd_10_cm"
XML_FILE = "icd10c-tabular-April-1-2026.xml"
INSTALL = "pip install simple-icd-10-cm==1.5.0"


@dataclass(frozen=True, slots=True)
class Term:
    """A text of the tabular list and the code that it stands for.

    Parameters
    ----------
    place : its place among the inclusion terms of its code, from 0, or `title`.
    """

    chapter: int
    code: str
    place: int | str
    text: str

    @property
    def category(self) -> str:
        """The three-character category, for instance `A01` of `A01.4`."""
        return self.code[:3]


@dataclass(frozen=True, slots=True)
class TabularList:
    """Inclusion terms of every code and titles of the three-character categories, as written, in file order."""

    inclusion_terms: tuple[Term, ...]
    titles: tuple[Term, ...]


def xml_path() -> Path:
    """Where the installed wheel keeps the tabular list.

    Raises
    ------
    api.UserError : when the package is absent, or carries another release of ICD-10-CM.
    """
    spec = find_spec(PACKAGE)  # of a top-level package: finds it, imports nothing
    if spec is None or spec.origin is None:
        raise api.UserError(f"ICD-10-CM is read from the package {PACKAGE!r}, which is not installed", fix=INSTALL)
    path = Path(spec.origin).parent / "data" / XML_FILE
    if not path.is_file():
        raise api.UserError(f"{path} is missing: another release of {PACKAGE!r} is installed", fix=INSTALL)
    return path


def parse(xml: bytes, where: str) -> TabularList:
    """Read the tabular list; `where` names the file in errors.

    Raises
    ------
    api.UserError : when the bytes are not well-formed XML.
    """
    terms: list[Term] = []
    titles: list[Term] = []
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
        elif tag == "desc" and parent == "diag" and len(codes[-1]) == 3:
            titles.append(Term(chapter, codes[-1], "title", "".join(text)))
        elif tag == "note" and path[-2:] == ["diag", "inclusionTerm"]:  # a few stand under a block, without a code
            code = codes[-1]
            terms.append(Term(chapter, code, seen[code], "".join(text)))
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
    return TabularList(tuple(terms), tuple(titles))
