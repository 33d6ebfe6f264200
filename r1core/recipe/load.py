"""The recipe of a run: the domain's, overridden by the user's file, overridden by `--set key=value`.

Every key remembers which file and line set it, so that a problem can be reported there and a relative path be
resolved against the file that says it. A later layer replaces arrays whole and merges tables key by key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from r1core.api import Domain, Problem
from r1core.recipe import errors, lines
from r1core.recipe.paths import absolute
from r1core.recipe.problems import InvalidInput, refuse
from r1core.recipe.schema import Recipe

T = TypeVar("T")


class Earlier(Protocol):
    """A layer below all others: the recipe of the run that is continued (see `r1core.recipe.continued`)."""

    def lay(self, merged: Merged) -> None:
        """Merge it."""
        ...

    def drop_records(self, merged: Merged) -> None:
        """Once all layers are merged: take out what belongs to the earlier run's records, where others are given."""
        ...


ALTERNATIVES: dict[str, tuple[frozenset[str], ...]] = {
    "model": (frozenset({"base"}), frozenset({"path"}), frozenset({"hub", "revision"})),
    "data": (frozenset({"source"}), frozenset({"files"})),
    "adapter": (frozenset({"preset"}), frozenset({"rank", "alpha"})),
    "train": (frozenset({"learning_rate"}), frozenset({"learning_rate_preset", "base_learning_rate"})),
}
"""Keys that exclude each other: a layer that sets one of them drops the others set by earlier layers."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A merged recipe, or the problems that stand in its way.

    Parameters
    ----------
    recipe : None where `problems` holds an error.
    origins : dotted key to `file:line`, or to `--set key`; a key that no layer sets (a default) is absent.
    draft : the merged tables before they were validated, paths absolute.
    """

    recipe: Recipe | None
    origins: dict[str, str]
    problems: list[Problem]
    directories: Mapping[str, Path] = field(default_factory=dict)
    draft: Mapping[str, Any] = field(default_factory=dict)

    def require(self) -> Recipe:
        """The recipe; raises `InvalidInput` with every problem where there is one."""
        refuse(self.problems)
        if self.recipe is None:
            raise InvalidInput([Problem("recipe", "no recipe", "a domain or a recipe file", "name a domain")])
        return self.recipe

    def where(self, key: str) -> str:
        """`file:line` of the key, of the nearest table around it, or "recipe"."""
        return _nearest(key, self.origins, "recipe")

    def origin_dir(self, key: str) -> Path:
        """Directory against which a relative path under this key is resolved: that of the file which set it."""
        return _nearest(key, self.directories, Path.cwd())


def resolve(
    *, domain: Domain | None, file: Path | None, sets: Sequence[str] = (), earlier: Earlier | None = None
) -> Resolved:
    """Merge the layers, validate the result, and report everything that is wrong with it at once."""
    merged = Merged()
    if earlier is not None:
        earlier.lay(merged)
    if domain is not None:
        merged.file(domain.recipe, domain.resources)
    from_domain = dict(merged.origins)
    if file is not None:
        merged.file(file, file.resolve().parent)
    for assignment in sets:
        merged.assignment(assignment)
    merged.drop_unused_sections(from_domain)
    if earlier is not None:
        earlier.drop_records(merged)
    draft = Resolved(None, merged.origins, merged.problems, merged.directories)
    if merged.unread:  # what is missing from a file that could not be read is not the user's mistake
        return draft
    data = absolute(Recipe, merged.data, draft.origin_dir)
    recipe = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        merged.problems += errors.problems(error, Recipe, data, draft.where)
    whole = recipe if not merged.problems else None
    return Resolved(whole, merged.origins, merged.problems, merged.directories, data)


class Merged:
    """The layers so far: data, where each key was set, and what could not be read."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.directories: dict[str, Path] = {}
        self.problems: list[Problem] = []
        self.unread = False

    def file(self, path: Path, directory: Path) -> None:
        """Merge a TOML file; a syntax error is one problem, at its line."""
        text = self._text(path)
        if text is None:
            self.unread = True
            return
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
            said = re.sub(r" \(at .*\)$", "", str(error))
            line = at[1] if at else str(max(1, len(text.rstrip().splitlines())))
            column = f" (column {at[2]})" if at else " (end of the file)"
            self.unread = True
            self._refuse(f"{path}:{line}", f"not TOML: {said}{column}", "valid TOML", "mend this line")
            return
        where = {key: f"{path}:{line}" for key, line in lines.index(text).items()}
        self.layer(data, where, directory)

    def assignment(self, text: str) -> None:
        """Merge one `a.b=value`; the value is TOML, or else a bare word taken as a string."""
        key, equals, value = text.partition("=")
        place = f"--set {key.strip()}"
        path = _key_path(key)
        if not equals or path is None:
            self._refuse(f"--set {text}", "no `key=value`", "for instance train.steps=50", "write --set key=value")
            return
        parsed, ok = _toml_value(value.strip())
        if not ok:
            expected = "a number, string, array or table"
            self._refuse(place, f"not a TOML value: {value.strip()}", expected, "mind the quotes")
            return
        data: Any = parsed
        for part in reversed(path):
            data = {part: data}
        where = {".".join(path[: n + 1]): place for n in range(len(path))}
        self.layer(data, where, Path.cwd())

    def drop_unused_sections(self, from_domain: Mapping[str, str]) -> None:
        """Where the user chose other plugins, drop the domain's sections of those that were left out."""
        run, sections = self.data.get("run"), self.data.get("plugins")
        names = run.get("plugins") if isinstance(run, dict) else None
        if not isinstance(sections, dict) or not isinstance(names, list):
            return
        if self.origins["run.plugins"] == from_domain.get("run.plugins"):
            return
        for name in [name for name in sections if name not in names]:
            key = f"plugins.{name}"
            if all(self.origins[k] == from_domain.get(k) for k in self._under(key)):
                del sections[name]
                self.forget(key)

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_bytes().decode("utf-8")
        except OSError as error:
            self._refuse(str(path), f"cannot be read: {error.strerror}", "a recipe file", "check the path")
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            self._refuse(f"{path}:{line}", f"bad UTF-8: {error.reason}", "UTF-8 text", "save the file as UTF-8")
        return None

    def _refuse(self, where: str, found: str, expected: str, fix: str) -> None:
        self.problems.append(Problem(where, found, expected, fix))

    def layer(self, data: dict[str, Any], where: Mapping[str, str], directory: Path) -> None:
        """Merge tables; `where` tells of each key what set it."""
        for section, alternatives in ALTERNATIVES.items():
            self._exclude(section, alternatives, data.get(section))
        self._merge(self.data, data, "", where, directory)

    def _exclude(self, section: str, alternatives: Sequence[frozenset[str]], new: object) -> None:
        old = self.data.get(section)
        if not isinstance(new, dict) or not isinstance(old, dict):
            return
        if chosen := [group for group in alternatives if group & new.keys()]:
            for key in {key for group in alternatives if group not in chosen for key in group} & old.keys():
                del old[key]
                self.forget(f"{section}.{key}")

    def _merge(
        self, old: dict[str, Any], new: dict[str, Any], prefix: str, where: Mapping[str, str], directory: Path
    ) -> None:
        for name, value in new.items():
            key = f"{prefix}.{name}" if prefix else name
            if isinstance(value, dict) and isinstance(old.get(name), dict):
                self._mark(key, where, directory)
                self._merge(old[name], value, key, where, directory)
            else:
                self.forget(key)
                self._mark_all(key, value, where, directory)
                old[name] = value

    def _mark_all(self, key: str, value: Any, where: Mapping[str, str], directory: Path) -> None:
        self._mark(key, where, directory)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, one in inner:
            self._mark_all(f"{key}.{name}", one, where, directory)

    def _mark(self, key: str, where: Mapping[str, str], directory: Path) -> None:
        self.origins[key] = _nearest(key, where, "recipe")
        self.directories[key] = directory

    def forget(self, key: str) -> None:
        """Let nothing be known of who set a key and what is under it; its value is the caller's to remove."""
        for old in self._under(key):
            del self.origins[old], self.directories[old]

    def _under(self, key: str) -> list[str]:
        return [k for k in self.origins if k == key or k.startswith(f"{key}.")]


def _nearest(key: str, known: Mapping[str, T], default: T) -> T:
    while key:
        if key in known:
            return known[key]
        key = key.rpartition(".")[0]
    return default


def _key_path(key: str) -> list[str] | None:
    """The parts of a dotted key, quoted parts included; None where it is not one."""
    try:
        level: Any = tomllib.loads(f"{key.strip()} = 0") if key.strip() and "\n" not in key else None
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(level, dict) and len(level) == 1:
        part, level = next(iter(level.items()))
        path.append(part)
    return path if path and level == 0 else None


def _toml_value(text: str) -> tuple[Any, bool]:
    """`(value, True)`, or `(text, False)` where it starts like a TOML string, array or table and is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text, not text.startswith(('"', "'", "[", "{"))
    return (parsed["value"], True) if len(parsed) == 1 else (text, True)
