"""What the user typed to name a run. Light: the command line builds it before anything is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Selection:
    """What the user typed: a domain or none, a recipe file, overrides, how plugins are narrowed, a run to continue."""

    domain: str | None = None
    recipe: Path | None = None
    sets: tuple[str, ...] = ()
    run: Path | None = None
    blocked: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    earlier: Path | None = None
