"""What is installed, read from distribution metadata alone: nothing of any plugin is imported.

Only the standard library is used here, so that `r1core plugins` starts fast. Nothing is decided here either:
two plugins of one name are both listed, and refused only when that name is asked for (`r1core.plugins.loading`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

PLUGINS: Final = "r1core.plugins"
DOMAINS: Final = "r1core.domains"
COMMANDS: Final = "r1core.commands"
Group = Literal["r1core.plugins", "r1core.domains", "r1core.commands"]

_REQUIREMENT = re.compile(
    r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?(?P<range>[^;)]*)\)?\s*(?:;(?P<marker>.*))?$"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """One entry point and what its distribution's metadata says.

    Parameters
    ----------
    name : name of the entry point: the plugin, the domain or the verb.
    requires_r1core : the API range from `Requires-Dist: r1core...`, for instance `<0.2,>=0.1`; "" where none is stated.
    entry_point : the standard library's entry point; `load()` imports it.
    """

    name: str
    distribution: str
    version: str
    summary: str
    requires_r1core: str
    entry_point: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def installed(group: Group) -> list[Installed]:
    """Every entry point of the group, by name and distribution; two of one name are both there."""
    found = []
    for entry_point in metadata.entry_points(group=group):
        # `dist` is absent only on entry points made by hand, which `metadata.entry_points` never returns
        if (distribution := entry_point.dist) is not None:
            about = distribution.metadata
            name, version = about["Name"] or "", about["Version"] or ""
            summary = about["Summary"] or ""
            api_range = _api_range(distribution.requires or [])
            found.append(Installed(entry_point.name, name, version, summary, api_range, entry_point))
    return sorted(found, key=lambda one: (one.name, one.distribution))


def named(group: Group, name: str) -> list[Installed]:
    """The installed entry points of exactly this name: none, one, or (an error when asked for) several."""
    return [one for one in installed(group) if one.name == name]


def normalise(distribution: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def requirement(line: str) -> tuple[str, str, str]:
    """`(normalised name, version range, extra)` of one Requires-Dist line; "" where a part is absent."""
    match = _REQUIREMENT.match(line)
    if match is None:
        return "", "", ""
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", match["marker"] or "")
    return normalise(match["name"]), match["range"].strip(), extra[1] if extra else ""


def _api_range(requires: list[str]) -> str:
    ranges = [bounds for name, bounds, extra in map(requirement, requires) if name == "r1core" and not extra and bounds]
    return ",".join(ranges)
