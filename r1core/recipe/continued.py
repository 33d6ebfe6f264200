"""The recipe of a run that is continued, as the lowest layer of the new run's.

What the new recipe does not say is as it was in the earlier run, so `--continue RUN` and new files suffice. Three
things are the new run's own: its name, where it starts from, and, once it names other records, whatever belongs to
the earlier run's records alone (its files and their label set; how columns are called stays).
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from r1core.api import UserError
from r1core.recipe.load import Merged

ORIGIN = "--continue"
"""What a problem's place is called where the option set the key."""


class EarlierRecipe:
    """A layer for `r1core.recipe.load.resolve`: the recipe of the run in `directory`.

    Raises
    ------
    UserError : where there is no run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self._inherited: dict[str, str] = {}
        if not (self.directory / "recipe.toml").is_file():
            raise UserError(
                f"--continue {directory}: no run here (no recipe.toml)", fix="name the directory of an adapted run"
            )

    @cached_property
    def domain(self) -> str | None:
        """The domain of the earlier run; None without one, or where its recipe cannot be read (which `lay` tells)."""
        try:
            run = tomllib.loads((self.directory / "recipe.toml").read_text(encoding="utf-8")).get("run")
        except ValueError:
            return None
        return str(run.get("domain", "")) or None if isinstance(run, dict) else None

    def lay(self, merged: Merged) -> None:
        """Merge the earlier run's recipe, under a new name."""
        merged.file(self.directory / "recipe.toml", self.directory)
        run = merged.data.get("run")
        named = run.get("name") if isinstance(run, dict) else None
        if isinstance(named, str):
            merged.layer({"run": {"name": next_name(named)}}, {"run.name": ORIGIN}, Path.cwd())
        self._inherited = dict(merged.origins)

    def drop_records(self, merged: Merged) -> None:
        """Say where training starts; leave the earlier run's files and labels out where other records are named."""
        merged.layer({"continual": {"from": str(self.directory)}}, {"continual.from": ORIGIN}, Path.cwd())
        data = merged.data.get("data")
        named = [key for key in merged.origins if key.startswith(("data.source", "data.files"))]
        if not isinstance(data, dict) or not any(self._is_new(merged, key) for key in named):
            return
        self._drop(merged, data.get("files"), "data.files", ("train", "val", "test"))
        self._drop(merged, data, "data", ("choices", "tasks"))

    def _drop(self, merged: Merged, table: Any, prefix: str, names: tuple[str, ...]) -> None:
        for name in names:
            if isinstance(table, dict) and name in table and not self._is_new(merged, f"{prefix}.{name}"):
                del table[name]
                merged.forget(f"{prefix}.{name}")

    def _is_new(self, merged: Merged, key: str) -> bool:
        return merged.origins[key] != self._inherited.get(key)


def next_name(name: str) -> str:
    """`first` as `first-2`, `first-2` as `first-3`."""
    numbered = re.fullmatch(r"(.+)-([0-9]{1,4})", name)
    return f"{numbered[1]}-{int(numbered[2]) + 1}" if numbered and int(numbered[2]) > 1 else f"{name}-2"
