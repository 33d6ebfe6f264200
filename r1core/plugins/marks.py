"""Which functions of a plugin are marked as hooks, and what is wrong with them: told before pluggy is."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pluggy

from r1core import api, hookspecs
from r1core.recipe.problems import did_you_mean

HOOKS: dict[str, Callable[..., object]] = dict(inspect.getmembers(hookspecs, inspect.isfunction))
"""The specified hooks by name."""


def marked(manager: pluggy.PluginManager, plugin: object) -> dict[str, Callable[..., object]]:
    """The plugin's functions that carry `@api.hookimpl`, by the name of the hook that they implement."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated attributes, for instance of a pydantic model
        for name in dir(plugin):
            options = manager.parse_hookimpl_opts(plugin, name)
            hook = (options and options.get("specname")) or name
            if options and (hook in HOOKS or not options["optionalhook"]):
                found[hook] = getattr(plugin, name)
    return found


def unmarked(plugin: object, marked: Mapping[str, object]) -> list[str]:
    """Names of the plugin's own functions that are called like a hook and lack the mark, so that nobody calls them."""
    members = vars(plugin) if isinstance(plugin, ModuleType) else vars(type(plugin))
    names = []
    for name in sorted(HOOKS.keys() & members.keys() - marked.keys()):
        local = not isinstance(plugin, ModuleType) or getattr(members[name], "__module__", "") == plugin.__name__
        if callable(members[name]) and local:
            names.append(name)
    return names


def problems(name: str, origin: str, plugin: object, marked: Mapping[str, Callable[..., object]]) -> list[api.Problem]:
    """A problem for a plugin without hooks, and for each marked function that is no hook or asks for more."""
    called = f"plugin {name!r} of {origin}"
    if not marked:
        forgotten = ", ".join(f"`{one}`" for one in unmarked(plugin, marked))
        fix = f"mark {forgotten} with @api.hookimpl" if forgotten else "mark its functions with @api.hookimpl"
        kind = "" if isinstance(plugin, (api.Plugin, ModuleType)) else f" (it is {_kind(plugin)})"
        expected = "a module or an api.Plugin with functions marked @api.hookimpl"
        return [api.Problem(f"plugin {name}", f"{called} implements no hook{kind}", expected, fix)]
    found = []
    for hook, function in marked.items():
        if hook not in HOOKS:
            near = did_you_mean(hook, HOOKS)
            said = f"{called} implements unknown hook {hook!r}"
            fix = f"did you mean {near!r}?" if near else "remove its @hookimpl"
            found.append(api.Problem(f"plugin {name}", said, f"one of {', '.join(sorted(HOOKS))}", fix))
            continue
        allowed = list(inspect.signature(HOOKS[hook]).parameters)
        for argument in inspect.signature(function).parameters:
            if argument not in allowed:
                near = did_you_mean(argument, allowed)
                said = f"{called}: hook {hook!r} has no argument {argument!r}"
                fix = f"did you mean {near!r}?" if near else f"remove {argument!r}"
                found.append(api.Problem(_place(function), said, f"any of {', '.join(allowed)}", fix))
    return found


def _place(function: Callable[..., object]) -> str:
    code = inspect.unwrap(getattr(function, "__func__", function)).__code__
    path, here = Path(code.co_filename), Path.cwd()
    return f"{path.relative_to(here) if here in path.parents else path}:{code.co_firstlineno}"


def _kind(plugin: object) -> str:
    return f"the function `{plugin.__name__}`" if inspect.isfunction(plugin) else f"of type {type(plugin).__name__}"
