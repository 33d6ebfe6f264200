"""`r1core new plugin|domain NAME`: a distribution that installs, passes its own tests and changes a run."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import r1core
from r1core.api import UserError

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def create(kind: Literal["plugin", "domain"], name: str, directory: Path | None = None) -> Path:
    """Write the distribution into `directory` (default `plugins/NAME` or `domains/NAME`) and return that folder.

    Raises
    ------
    UserError : for a name that is no lower-case Python identifier, or a folder that is not empty.
    """
    if not _NAME.fullmatch(name):
        suggestion = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_0123456789") or "my_plugin"
        expected = "expected lower-case letters, digits and underscores"
        raise UserError(f"{kind} name {name!r}: {expected}", fix=f"r1core new {kind} {suggestion}")
    target = directory or Path(f"{kind}s") / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty", fix="choose another name or folder")
    words = {
        "name": name,
        "class": "".join(part.capitalize() for part in name.split("_")),
        "distribution": f"r1core-{name.replace('_', '-')}",
        "package": f"r1core_{name}",
        "title": name.replace("_", " "),
        "api": _api_range(r1core.__version__),
    }
    _copy(resources.files(__package__) / "templates" / kind, target, words)
    return target


def _api_range(version: str) -> str:
    """The range of API versions that a plugin written today is for: up to the next minor release."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def _copy(source: Traversable, target: Path, words: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        name = words["package"] if item.name == "package" else item.name.removesuffix(".tmpl")
        if item.is_dir():
            _copy(item, target / name, words)
        else:
            text = item.read_text(encoding="utf-8")
            filled = re.sub(r"\{\{(\w+)\}\}", lambda match: words[match[1]], text)
            (target / name).write_text(filled, encoding="utf-8")
