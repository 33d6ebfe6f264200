"""One plugin's section of the recipe, validated by the plugin's own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from r1core.api import Problem
from r1core.plugins.find import Found
from r1core.recipe import errors, paths
from r1core.recipe.problems import InvalidInput


def bracketed(key: str) -> str:
    """The place of a key where no file is known."""
    return f"[{key}]"


@dataclass(frozen=True, slots=True)
class Section:
    """A section as it stands in the recipe.

    Parameters
    ----------
    key : dotted key, `plugins.<name>`.
    where, origin_dir : place of a key, and the directory against which a relative path under it is resolved.
    """

    key: str
    values: Mapping[str, Any]
    where: errors.Where = bracketed
    origin_dir: paths.OriginDir | None = None

    def validate(self, found: Found, plugin: object) -> BaseModel | None:
        """The section as the plugin's config model, or None where the plugin has none.

        Unknown keys are refused at every level, whatever the plugin's model allows.

        Raises
        ------
        InvalidInput : with one problem for each wrong key.
        """
        model = getattr(plugin, "config", None)
        if model is None or isinstance(model, ModuleType):  # a package may have a submodule `config`
            if self.values:
                keys = ", ".join(sorted(self.values))
                told = f"plugin {found.name!r} of {found.origin} has no settings, found {keys}"
                raise self._refusal(told, "no such section", f"remove [{self.key}]")
            return None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            told = f"plugin {found.name!r} of {found.origin}: its `config` is {model!r}"
            raise self._refusal(told, "a pydantic model", f"use another release of {found.origin}")
        data = paths.absolute(model, self.values, self.origin_dir or (lambda key: Path.cwd()), self.key)
        try:
            return model.model_validate(data, extra="forbid")
        except ValidationError as error:
            raise InvalidInput(errors.problems(error, model, data, self.where, self.key)) from error

    def _refusal(self, found: str, expected: str, fix: str) -> InvalidInput:
        return InvalidInput([Problem(self.where(self.key), found, expected, fix)])
