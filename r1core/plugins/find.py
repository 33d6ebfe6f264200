"""From a name to the imported object: one installed entry point, of the right API version, that imports.

Serves plugins, domains and the verbs that plugins add. Every refusal is a `Problem` whose fix is the line to type.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import r1core
from r1core import api
from r1core.plugins import registry
from r1core.plugins.registry import Group, Installed
from r1core.plugins.told import place_of, told
from r1core.recipe.problems import InvalidInput, did_you_mean

_KIND = {registry.PLUGINS: "plugin", registry.DOMAINS: "domain", registry.COMMANDS: "command"}
_FOLDER = {registry.PLUGINS: "plugins", registry.DOMAINS: "domains", registry.COMMANDS: "plugins"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for, imported. `installed` is None for a file given by `--plugin` and for a bare object."""

    name: str
    target: object
    module: str
    installed: Installed | None = None

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return str(self.installed) if self.installed else self.module


def find(group: Group, name: str, where: str = "") -> Found:
    """Import what is installed under this name.

    Parameters
    ----------
    where : what asked for it (`recipe.toml:3`), named in the problem.

    Raises
    ------
    InvalidInput : missing, several of one name, wrong API version, or its import fails.
    """
    candidates = registry.named(group, name)
    kind = _KIND[group]
    where = where or f"{kind} {name}"
    if not candidates:
        _refuse_missing(group, name, where)
    if len(candidates) > 1:
        owners = " and ".join(str(one) for one in candidates)
        fix = f"pip uninstall {candidates[-1].distribution}"
        _refuse(where, f"two {kind}s are named {name!r}: {owners}", "one of them", fix)
    only = candidates[0]
    _check_version(group, only, where)
    return Found(name, _imported(group, only, where), only.entry_point.module, only)


def load_domain(name: str, where: str = "") -> api.Domain:
    """Import a domain: its entry point names an `api.Domain` or a function that returns one."""
    found = find(registry.DOMAINS, name, where)
    target = found.target
    if callable(target) and not isinstance(target, api.Domain):
        try:
            target = target()
        except Exception as error:
            raise broken(registry.DOMAINS, name, found.installed, error, where) from error
    if not isinstance(target, api.Domain):
        assert found.installed is not None
        said = f"domain {name!r} of {found.origin}: {found.installed.entry_point.value} is {type(target).__name__}"
        _refuse(where or f"domain {name}", said, "an r1core.api.Domain", f"use another release of {found.origin}")
    return target


def load_file(path: Path) -> Found:
    """Import one Python file as a plugin in development; its name is the file's stem."""
    name, module_name = path.stem, f"r1core_file_plugin_{path.stem}"
    where = f"--plugin {path}"
    if not path.is_file() or path.suffix != ".py":
        _refuse(where, "no such Python file", "the path of a .py file", "check the path")
    spec = util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        said = f"plugin {name!r} ({path}) does not import: {told(error)}"
        raise InvalidInput([api.Problem(where, said, "a module that imports", _mend(error))]) from error
    return Found(name, _plugin_in(module), module_name)


def broken(group: Group, name: str, installed: Installed | None, error: BaseException, where: str) -> InvalidInput:
    """The refusal of something installed that fails while it is imported or set up."""
    kind = _KIND[group]
    said = f"{kind} {name!r} of {installed or 'a file'} does not load: {told(error)}"
    way_out = f", or leave it out with --no-plugin {name}" if group == registry.PLUGINS else ""
    fix = (_pip_line(error, installed) if installed else "mend it") + way_out
    return InvalidInput([api.Problem(where or f"{kind} {name}", said, "", fix)])


def _plugin_in(module: ModuleType) -> object:
    """A file's plugin: its one `Plugin` subclass, or else the module itself with its marked functions."""
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, api.Plugin) and value.__module__ == module.__name__
    ]
    own = [one for one in own if not any(issubclass(other, one) for other in own if other is not one)]
    if len(own) > 1:
        names = " and ".join(one.__name__ for one in own)
        _refuse(f"--plugin {module.__file__}", f"holds the plugins {names}", "one a file", "split the file")
    return own[0] if own else module


def _imported(group: Group, only: Installed, where: str) -> object:
    try:
        return only.entry_point.load()
    except (Exception, SystemExit) as error:
        raise broken(group, only.name, only, error, where) from error


def _check_version(group: Group, only: Installed, where: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    kind, wanted = _KIND[group], only.requires_r1core
    try:
        fits = SpecifierSet(wanted).contains(r1core.__version__, prereleases=True)
    except InvalidSpecifier:
        fits = False
    if not fits:
        said = f"{kind} {only.name!r} of {only} is written for r1core {wanted}, found r1core {r1core.__version__}"
        folder = _declared(group, only.name)
        newer = f"pip install ./{folder}" if folder else f"pip install --upgrade {only.distribution}"
        _refuse(where, said, "", f"{newer}, or pip install 'r1core{wanted}'")


def _refuse_missing(group: Group, name: str, where: str) -> NoReturn:
    kind, folder = _KIND[group], _declared(group, name)
    if folder:
        said = f"{kind} {name!r} is declared in ./{folder} but not installed"
        _refuse(where, said, "", f"pip install ./{folder}")
    known = sorted({one.name for one in registry.installed(group)})
    near = did_you_mean(name, known)
    listed = f"one of {', '.join(known)}" if known else f"a {kind} (none is installed)"
    way_out = f"did you mean {near!r}?" if near else f"pip install the distribution that provides {kind} {name!r}"
    _refuse(where, f"{kind} {name!r} is not installed", listed, way_out)


def _declared(group: Group, name: str) -> str:
    """The folder of the current directory that declares this name, for instance `domains/medical`, or ""."""
    for spelling in dict.fromkeys((name, name.replace("-", "_"), name.replace("_", "-"))):
        folder = Path(_FOLDER[group]) / spelling
        if (folder / "pyproject.toml").is_file():
            return folder.as_posix()
    return ""


def _pip_line(error: BaseException, installed: Installed) -> str:
    """What to type so that a failed import works: the missing requirement, its extra, or the whole again."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing:
        owners = {registry.normalise(missing.partition(".")[0])}
        for line in metadata.requires(installed.distribution) or []:
            name, bounds, extra = registry.requirement(line)
            if name in owners:
                wanted = f"{installed.distribution}[{extra}]" if extra else f"{name}{bounds}"
                return f"pip install '{wanted}'"
    return _mend(error) if _editable(installed) else f"pip install --force-reinstall {installed.distribution}"


def _mend(error: BaseException) -> str:
    return f"mend {place_of(error) or 'the file'}"


def _editable(installed: Installed) -> bool:
    """Whether the distribution is installed from its author's own folder (PEP 610)."""
    origin = metadata.distribution(installed.distribution).read_text("direct_url.json")
    return bool(json.loads(origin or "{}").get("dir_info", {}).get("editable"))


def _refuse(where: str, found: str, expected: str, fix: str) -> NoReturn:
    raise InvalidInput([api.Problem(where, found, expected, fix)])
