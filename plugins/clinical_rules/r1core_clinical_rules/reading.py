"""Read rule files; every problem of every file at once, each with file, line and rule. Numbers stay exact decimals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r1core.api import Problem, UserError
from r1core_clinical_rules.rulebook import RuleBook, Sourced
from r1core_clinical_rules.schema import RuleFile

Place = tuple[str | int, ...]  # the path of a value in the document: ("rules", 3, "then", "forbid", "drugs", 0)
_KINDS = {"rules": "id", "drugs": "name", "classes": "name", "allergens": "name"}
_SINGULAR = {"classes": "class"}
_FROM_1 = "set `version: 2` and follow 'From version 1' on the page of this plugin"


@dataclass(frozen=True)
class _Document:
    """One parsed file: its path, the 1-based line of every value and key, and the data."""

    path: Path
    lines: Mapping[Place, int]
    data: object

    def where(self, place: Place) -> str:
        """`file:line`, with the rule's or drug's name where the place lies in one."""
        known = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in self.lines)
        text = f"{self.path}:{self.lines[known]}"
        if len(place) >= 2 and place[0] in _KINDS and isinstance(self.data, dict):
            entries, key = self.data.get(place[0]), _KINDS[str(place[0])]
            entry = entries[place[1]] if isinstance(entries, list) and isinstance(place[1], int) else None
            if isinstance(entry, dict) and isinstance(entry.get(key), str):
                text += f" {_SINGULAR.get(str(place[0]), str(place[0])[:-1])} {entry[key]}"
        return text


def read(paths: Iterable[Path]) -> tuple[RuleBook, list[Problem]]:
    """Return what could be read of these files, together, and everything that is wrong with them."""
    entries: list[Sourced] = []
    problems: list[Problem] = []
    parents: dict[str, set[str]] = {}
    for path in paths:
        document = _parse(Path(path), problems)
        if document is None:
            continue
        if isinstance(document.data, dict) and document.data.get("version") == 1:
            problems.append(Problem(document.where(("version",)), "a file of version 1", "version 2", _FROM_1))
            continue
        try:
            parsed = RuleFile.model_validate(document.data)
        except ValidationError as error:
            problems += [_schema_problem(document, e["loc"], e["msg"], e.get("input")) for e in error.errors()]
            continue
        for kind in _KINDS:
            entries += [Sourced(e, document.where((kind, i))) for i, e in enumerate(getattr(parsed, kind))]
        if parsed.hierarchy is not None:
            pairs = list(parsed.hierarchy.pairs)
            if parsed.hierarchy.file is not None:
                pairs += _pairs(hierarchy_file(Path(path), parsed.hierarchy.file), document, problems)
            for child, parent in pairs:
                parents.setdefault(child, set()).add(parent)
    book = RuleBook(entries, parents)
    # References reach across files, so they say nothing while a file is missing from the book.
    return book, problems or book.problems()


def hierarchy_file(rule_file: Path, named: Path) -> Path:
    """Where the hierarchy that a rule file names lies: beside it, unless the path is absolute."""
    return rule_file.parent / named


def input_files(paths: Iterable[Path]) -> list[Path]:
    """The rule files and the hierarchies that they name; one that cannot be read is listed all the same."""
    found: list[Path] = []
    for path in map(Path, paths):
        found.append(path)
        document = _parse(path, [])
        section = document.data.get("hierarchy") if document and isinstance(document.data, dict) else None
        if isinstance(section, dict) and isinstance(section.get("file"), str):
            found.append(hierarchy_file(path, Path(section["file"])))
    return found


def _pairs(path: Path, document: _Document, problems: list[Problem]) -> list[tuple[str, str]]:
    """The lines `child<TAB>parent` of a hierarchy; empty lines and those after # are left out."""
    where = document.where(("hierarchy", "file"))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = f"no readable hierarchy {str(path)!r} ({getattr(error, 'strerror', None) or 'not UTF-8'})"
        problems.append(Problem(where, found, "a file of `child<TAB>parent` lines", "correct `file`"))
        return []
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            problems.append(
                Problem(f"{path}:{number}", repr(line), "`child<TAB>parent`", "write two names and one tab")
            )
            return []
        pairs.append((cells[0], cells[1]))
    return pairs


def load(paths: Sequence[Path]) -> RuleBook:
    """Return the rules of these files.

    Raises
    ------
    UserError : naming every error found.
    """
    book, problems = read(paths)
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        shown = "; ".join(f"{p.where}: found {p.found}, expected {p.expected}" for p in errors)
        raise UserError(f"clinical rules: {shown}", fix=errors[0].fix)
    return book


def _parse(path: Path, problems: list[Problem]) -> _Document | None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        found = f"bytes that are not UTF-8 at offset {error.start}"
        problems.append(Problem(str(path), found, "a UTF-8 file", "save it as UTF-8"))
        return None
    except OSError as error:
        found = f"no readable file ({error.strerror or type(error).__name__})"
        problems.append(Problem(str(path), found, "a rule file", "correct the path in `files`"))
        return None
    document, broken = _parsed(path, text)
    problems += broken
    return document


@lru_cache(maxsize=16)
def _parsed(path: Path, text: str) -> tuple[_Document | None, tuple[Problem, ...]]:
    """The document and what is wrong with it as YAML; remembered, since every hook of the plugin asks for it."""
    lines: dict[Place, int] = {(): 1}
    twice: list[tuple[Place, int]] = []
    try:
        data = _data(text, lines, twice)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or str(error)
        return None, (Problem(where, f"broken YAML ({what})", "valid YAML", "mend this line"),)
    document = _Document(path, lines, data)
    problems = []
    for place, line in twice:
        where = f"{document.where(place[:-1]).replace(f':{lines[place[:-1]]}', f':{line}', 1)}"
        problems.append(Problem(where, f"the key `{place[-1]}` twice", "each key once", "remove one of them"))
    return document, tuple(problems)


def _data(text: str, lines: dict[Place, int], twice: list[tuple[Place, int]]) -> Any:
    """The document's data; libyaml parses 15 times as fast as Python, where PyYAML was built with it.

    The nodes are walked before the data is made of them, which merges `<<` into the nodes themselves.
    """
    loader = _loader()(text)
    try:
        root = loader.get_single_node()
        _walk(root, (), lines, twice)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


@lru_cache(maxsize=1)
def _loader() -> Any:
    """The fastest safe loader, with decimals instead of floats and days as text: both are read further on."""

    class Exact(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Exact.add_constructor("tag:yaml.org,2002:float", _exact)
    Exact.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))
    return Exact


def _exact(loader: Any, node: yaml.ScalarNode) -> object:
    """A plain decimal number exactly; `.inf`, `1e3` and the like stay text, which nothing takes for a number."""
    text = str(loader.construct_scalar(node)).replace("_", "")
    return Decimal(text) if set(text) <= set("0123456789.+-") and any(map(str.isdigit, text)) else text


def _walk(node: yaml.Node | None, place: Place, lines: dict[Place, int], twice: list[tuple[Place, int]]) -> None:
    """Note the line of every key and item, and the keys given twice (which YAML would silently merge)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*place, str(key.value))
            if below in lines:
                twice.append((below, key.start_mark.line + 1))
            lines[below] = key.start_mark.line + 1
            _walk(value, below, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*place, i)] = item.start_mark.line + 1
            _walk(item, (*place, i), lines, twice)


def _schema_problem(document: _Document, place: Place, message: str, found: object) -> Problem:
    key = ".".join(str(part) for part in place) or "the file"
    if message.startswith("Extra inputs"):
        fix = f"remove `{place[-1]}`"
        return Problem(document.where(place), f"the unknown key `{key}`", "a key of the schema", fix)
    if message == "Field required":
        fix = f"add `{place[-1]}: ...`"
        return Problem(document.where(place), f"no `{key}`", f"`{place[-1]}` to be given", fix)
    shown = repr(found) if isinstance(found, str | int | float | bool | None) else f"a {type(found).__name__}"
    if isinstance(found, Decimal):
        shown = str(found)
    expected = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return Problem(document.where(place), f"{shown} in `{key}`", expected, f"correct `{key}`")
