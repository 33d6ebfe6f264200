"""The plugins of one run: chosen, imported, registered, configured, and asked for their components.

Only what was asked for is imported. Everything that is wrong with any of them is reported at once.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pluggy

from r1core import api, hookspecs
from r1core.plugins import contract, marks, registry
from r1core.plugins.config import Section, bracketed
from r1core.plugins.find import Found, broken, find, load_domain, load_file
from r1core.plugins.guard import guard, tolerated
from r1core.plugins.lock import entry
from r1core.plugins.told import attributed
from r1core.recipe.errors import Where
from r1core.recipe.load import Resolved
from r1core.recipe.problems import InvalidInput, collecting, did_you_mean, refuse

__all__ = ["Contribution", "Plugins", "load_domain"]

log = logging.getLogger("r1core.plugins")

ONLY = "R1CORE_PLUGINS"
"""Environment variable that narrows a run to these plugins, comma-separated."""


class Contribution(NamedTuple):
    """One component (guarded: it raises in its plugin's name) and the plugin that it comes from."""

    plugin: str
    component: Any


class Plugins:
    """The loaded plugins of one run.

    Attributes
    ----------
    contexts : what each plugin is told, by name.
    left_out : plugins that were asked for but narrowed away or blocked, with the reason.
    failures : how often an observing hook failed, by `plugin:hook`.
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("r1core")
        self.manager.add_hookspecs(hookspecs)
        self.contexts: dict[str, api.Context] = {}
        self.left_out: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self._found: dict[str, Found] = {}

    @classmethod
    def load(
        cls,
        names: Sequence[str],
        *,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        domain: str = "",
        seed: int = 0,
        run_dir: Path | None = None,
        tokenizer_factory: Callable[[], Any] | None = None,
        allow: Sequence[str] | None = None,
        block: Sequence[str] = (),
        files: Sequence[Path] = (),
        resolved: Resolved | None = None,
        listing: bool = False,
    ) -> Plugins:
        """Load plugins by name and files in development.

        Parameters
        ----------
        configs : the recipe's `[plugins.<name>]` sections; a name that is not loaded is an error.
        allow : narrows to these names; None takes them from `R1CORE_PLUGINS`, which is ignored when empty.
        block : names to leave out (`--no-plugin`).
        resolved : the recipe, for the places in messages and the directories of relative paths.
        listing : plugins are only asked what they are, so one whose settings have no default gets none.

        Raises
        ------
        InvalidInput : with one problem for each plugin or key that is missing, broken or wrong.
        """
        plugins, configs = cls(), configs or {}
        where = resolved.where if resolved else bracketed
        factory = functools.cache(tokenizer_factory) if tokenizer_factory else None
        allow = allow if allow is not None else _names(os.environ.get(ONLY, "")) or None
        problems: list[api.Problem] = []
        wanted: list[tuple[str, Path | None]] = []
        with collecting(problems):
            wanted = plugins._chosen(names, files, allow, block)
        for name, file in wanted:
            place = where(f"run.plugins.{list(names).index(name)}") if resolved and name in names else ""
            with collecting(problems):
                found = load_file(file) if file else find(registry.PLUGINS, name, place)
                section = Section(
                    f"plugins.{name}", configs.get(name, {}), where, resolved.origin_dir if resolved else None
                )
                plugins._add(found, api.Context(domain, None, seed, run_dir, factory), section, listing)
        listed = {name for name, _ in wanted} | plugins.left_out.keys() | set(names)
        problems += [_unlisted(name, listed, where) for name in configs if name not in listed]
        refuse(problems)
        return plugins

    @classmethod
    def of(cls, name: str, target: object, *, config: Mapping[str, Any] | None = None, **context: Any) -> Plugins:
        """One plugin object under a name of one's own, as tests and the conformance kit use it.

        `context` : fields of `api.Context`.
        """
        module = target.__name__ if isinstance(target, ModuleType) else _class_of(target).__module__
        plugins = cls()
        base = api.Context(**{"domain": "", "config": None, "seed": 0, **context})
        found = Found(name, target, module)
        plugins._add(found, base, Section(f"plugins.{name}", config or {}))
        return plugins

    def sections(self) -> dict[str, dict[str, Any]]:
        """Each plugin's validated section as JSON, paths absolute: what a frozen recipe holds."""
        made = {name: context.config for name, context in sorted(self.contexts.items())}
        return {name: config.model_dump(mode="json", exclude_none=True) for name, config in made.items() if config}

    @property
    def names(self) -> list[str]:
        """Names of the loaded plugins, sorted."""
        return sorted(self._found)

    def hooks(self, name: str) -> list[str]:
        """Names of the hooks that this plugin implements, sorted."""
        callers = self.manager.get_hookcallers(self.manager.get_plugin(name)) or []
        return sorted(caller.name for caller in callers)

    def origin(self, name: str) -> str:
        """Distribution and version of a loaded plugin, or its file's module."""
        return self._found[name].origin

    def call(self, hook: str, **arguments: Any) -> list[Contribution]:
        """Ask every plugin for its components of this hook, each with its own `ctx`, in order of plugin names.

        Raises
        ------
        PluginError : a hook raised, or returned what its specification does not allow. Where the hook only
            observes (`callback`, `report`), that is logged and counted in `failures` instead.
        """
        result: list[Contribution] = []
        for name in self.names:
            if hook not in self.hooks(name):
                continue
            if hook in contract.LENIENT:
                with tolerated(name, hook, self.failures):
                    result += self._components(name, hook, arguments)
            else:
                result += self._components(name, hook, arguments)
        return result

    def lock(self) -> list[dict[str, object]]:
        """One entry for each plugin: name, distribution, version, api, hooks, source_sha256."""
        return [self._entry(name) for name in self.names]

    def _entry(self, name: str) -> dict[str, object]:
        found = self._found[name]
        about = found.installed
        return entry(
            name,
            distribution=about.distribution if about else f"({found.module})",
            version=about.version if about else "",
            api_range=about.requires_r1core if about else "",
            hooks=self.hooks(name),
            module=found.module,
        )

    def _components(self, name: str, hook: str, arguments: Mapping[str, Any]) -> list[Contribution]:
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name]
        caller = self.manager.subset_hook_caller(hook, others)
        with attributed(name, hook):
            found = list(contract.flatten(caller(ctx=self.contexts[name], **arguments)))
        for component in found:
            for violation in contract.violations(name, hook, component):
                raise api.PluginError(name, hook, violation)
        named = [] if hook in contract.UNNAMED else [component.name for component in found]  # type: ignore[attr-defined]
        for twice in contract.duplicates(named):
            raise api.PluginError(name, hook, f"two components are named {twice!r}")
        return [Contribution(name, guard(name, hook, component, self.failures)) for component in found]

    def _chosen(
        self, names: Sequence[str], files: Sequence[Path], allow: Sequence[str] | None, block: Sequence[str]
    ) -> list[tuple[str, Path | None]]:
        """The names to load, each with its file if it has one, after narrowing and blocking."""
        by_file = {file.stem: file for file in files}
        problems = []
        for stem in contract.duplicates(file.stem for file in files):
            problems.append(api.Problem("--plugin", f"two files are named {stem!r}", "different names", "rename one"))
        wanted = {name: by_file.get(name) for name in (*names, *by_file)}
        installed = {one.name: one for one in registry.installed(registry.PLUGINS)}
        for name in by_file.keys() & installed.keys():
            both = f"two plugins are named {name!r}: {installed[name]} and {by_file[name]}"
            problems.append(api.Problem("--plugin", both, "one of them", "rename the file"))
        for source, listed in ((ONLY, allow or ()), ("--no-plugin", block)):
            for name in listed:
                if name not in wanted and name not in installed:
                    problems.append(_unknown(source, name, {*wanted, *installed}))
        refuse(problems)
        for name in wanted:
            if name in block:
                self.left_out[name] = "blocked by --no-plugin"
            elif allow is not None and name not in allow:
                self.left_out[name] = f"not in {ONLY}"
        for name, reason in self.left_out.items():
            log.info("plugin %r is left out: %s", name, reason)
        return [(name, file) for name, file in wanted.items() if name not in self.left_out]

    def _add(self, found: Found, context: api.Context, section: Section, listing: bool = False) -> None:
        """Instantiate, register and configure one plugin."""
        name, plugin = found.name, found.target
        try:
            plugin = plugin() if isinstance(plugin, type) else plugin
        except Exception as error:
            raise broken(registry.PLUGINS, name, found.installed, error, "") from error
        refuse(marks.problems(name, found.origin, plugin, marks.marked(self.manager, plugin)))
        self.manager.register(plugin, name)
        try:
            self.contexts[name] = replace(context, config=section.validate(found, plugin))
        except InvalidInput:
            if not listing or section.values:
                raise
            self.contexts[name] = context
        self._found[name] = found


def _unlisted(name: str, listed: Iterable[str], where: Where) -> api.Problem:
    near = did_you_mean(name, listed)
    fix = f"did you mean [plugins.{near}]?" if near else f'add "{name}" to run.plugins, or remove the section'
    return api.Problem(where(f"plugins.{name}"), f"settings of plugin {name!r}, which takes no part", "", fix)


def _unknown(source: str, name: str, known: Iterable[str]) -> api.Problem:
    near = did_you_mean(name, known)
    fix = f"did you mean {near!r}?" if near else f"remove {name!r}"
    return api.Problem(source, f"plugin {name!r} is neither asked for nor installed", "", fix)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _class_of(target: object) -> type:
    return target if isinstance(target, type) else type(target)
