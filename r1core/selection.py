"""What the user typed to name a run. Light: the command line builds it before anything is imported."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from r1core.errors import UserError


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


def of_run(
    directory: Path, sets: tuple[str, ...] = (), blocked: tuple[str, ...] = (), files: tuple[Path, ...] = ()
) -> Selection:
    """An existing run, whose `recipe.toml` is taken up again.

    Raises
    ------
    UserError : for a directory that holds no run.
    """
    frozen = directory / "recipe.toml"
    if not frozen.is_file():
        raise UserError(f"{directory}: no run here (no recipe.toml)", fix="name a run directory, or a domain")
    try:
        domain = tomllib.loads(frozen.read_text(encoding="utf-8"))["run"]["domain"] or None
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(f"{frozen}: not a run's recipe: {error}") from error
    return Selection(domain, frozen, sets, directory, blocked, files)
