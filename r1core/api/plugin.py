"""The plugin and the domain themselves: the hook marker, what a hook is told, what `validate` is given and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from r1core.api.data import DatasetSource
from r1core.api.values import JSON
from r1core.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("r1core")


class Plugin:
    """Optional base of a plugin: names the config model. Hooks are methods marked with `@hookimpl`.

    An entry point of the group `r1core.plugins` may name a `Plugin` subclass, an instance or a module.
    """

    config: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain distribution's entry point names: composition only, no hook implementation.

    Parameters
    ----------
    recipe : path of the complete recipe that users override.
    resources : directory against which relative paths in that recipe are resolved.
    sources : the domain's own data sets.
    """

    name: str
    summary: str
    recipe: Path
    resources: Path
    sources: tuple[DatasetSource, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a hook is told when it builds its components.

    Parameters
    ----------
    domain : name of the domain, or "" without one.
    config : this plugin's section of the recipe, validated by its own config model.
    seed : the run's seed; derive generators from `(seed, epoch, index)`, never from global state.
    run_dir : the run directory, or None outside a run.
    tokenizer_factory : builds the tokenizer when it is first asked for.
    """

    domain: str
    config: BaseModel | None
    seed: int
    run_dir: Path | None = None
    tokenizer_factory: Callable[[], Any] | None = None

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded at the first access.

        Raises
        ------
        UserError : where no model is configured (for instance inside `r1core umls link`).
        """
        if self.tokenizer_factory is None:
            raise UserError("no tokenizer here: this command works without a model")
        return self.tokenizer_factory()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is about to do, for `validate` hooks: the resolved recipe as JSON and where each key came from."""

    recipe: Mapping[str, JSON]
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that `r1core check` found: where, what, what was expected and how to mend it."""

    where: str
    found: str
    expected: str
    fix: str
    severity: Literal["error", "warning"] = "error"
