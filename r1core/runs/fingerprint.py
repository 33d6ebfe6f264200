"""What a stage's result depends on, as one hash and as parts that can be told apart in words."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import r1core
from r1core.api import JSON
from r1core.runs.files import canonical_json, sha256_bytes, sha256_tree


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A stage's dependencies.

    Parameters
    ----------
    stage : name of the stage.
    recipe : the recipe sections that the stage reads, resolved, as JSON.
    inputs : name of each input to the hash of its content.
    source : hash of r1core's own source files.
    plugins : plugin name to `version source_sha256`.
    components : component name (`plugin/name`) to its own `fingerprint()`.
    files : where inputs lie on this machine, by name. For the manifest only: the parts above say what they hold.
    """

    stage: str
    recipe: Mapping[str, JSON]
    inputs: Mapping[str, str]
    source: str
    plugins: Mapping[str, str]
    components: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, JSON]:
        """The parts as a JSON object, without the files."""
        return {
            "stage": self.stage,
            "recipe": dict(self.recipe),
            "inputs": dict(self.inputs),
            "source": self.source,
            "plugins": dict(self.plugins),
            "components": dict(self.components),
        }

    @classmethod
    def from_json(cls, parts: Mapping[str, JSON]) -> Fingerprint:
        """The inverse of `to_json`."""
        return cls(**{key: parts[key] for key in ("stage", "recipe", "inputs", "source", "plugins", "components")})

    @property
    def digest(self) -> str:
        """SHA-256 of the parts' canonical JSON: equal exactly when every part is."""
        return sha256_bytes(canonical_json(self.to_json()).encode())


def stage_fingerprint(
    stage: str,
    *,
    recipe_sections: Mapping[str, JSON],
    inputs: Mapping[str, str],
    source: str,
    plugins: Sequence[Mapping[str, JSON]],
    components: Mapping[str, str],
    files: Mapping[str, Path] | None = None,
) -> Fingerprint:
    """Gather a stage's dependencies.

    Parameters
    ----------
    plugins : the plugin lock, `{name, version, source_sha256, ...}` each; its order does not count.

    Raises
    ------
    ValueError : when two entries of the lock carry one name, or a recipe value is NaN or infinite.
    """
    locked = {str(entry["name"]): f"{entry.get('version')} {entry.get('source_sha256', '')}" for entry in plugins}
    if len(locked) != len(plugins):
        raise ValueError(f"the plugin lock of stage {stage!r} names a plugin twice")
    made = Fingerprint(stage, dict(recipe_sections), dict(inputs), source, locked, dict(components), dict(files or {}))
    canonical_json(made.to_json())
    return made


def own_fingerprints(components: Iterable[object]) -> dict[str, str]:
    """What components state by their own `fingerprint()`, by name; nothing of those that have none, or an empty one.

    Names are unique within a hook only: where a metric and a constraint share one, both are stated under it.
    """
    found: dict[str, list[str]] = {}
    for component in components:
        stating = getattr(component, "fingerprint", None)
        if stating is not None and (own := stating()):
            found.setdefault(str(getattr(component, "name", type(component).__name__)), []).append(own)
    return {name: own[0] if len(own) == 1 else canonical_json(own) for name, own in found.items()}


@functools.cache
def source_hash(*rooms: str) -> str:
    """Hash of r1core's own Python files and templates.

    Parameters
    ----------
    rooms : top-level files or folders of the package (`"data"`, `"compose.py"`) that count; all of them by default.

    Raises
    ------
    ValueError : for a room that does not exist; hashing nothing would never see a change.
    """
    root = Path(r1core.__file__).parent
    if absent := [room for room in rooms if not (root / room).exists()]:
        raise ValueError(f"no such room of r1core: {', '.join(absent)}")
    hashes = sha256_tree(
        root,
        keep=lambda path: "__pycache__" not in path.parts and (not rooms or path.parts[0] in rooms),
    )
    return sha256_bytes(canonical_json(hashes).encode())


def diff(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Why a stage must run again, one reason a line; empty when nothing changed."""
    reasons = [f"recipe: {line}" for line in _value_changes(old.recipe, new.recipe, "")]
    reasons += _hash_changes("input", old.inputs, new.inputs)
    if old.source != new.source:
        reasons.append("the source of r1core changed")
    for name in sorted({*old.plugins, *new.plugins}):
        reasons += _plugin_change(name, old.plugins.get(name), new.plugins.get(name))
    reasons += _hash_changes("component", old.components, new.components)
    if old.stage != new.stage:
        reasons.append(f"the stage was {old.stage!r} and is {new.stage!r}")
    return reasons


def _value_changes(old: JSON, new: JSON, key: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            dotted = f"{key}.{name}" if key else name
            if name not in old:
                yield f"{dotted} = {_short(new[name])} is new"
            elif name not in new:
                yield f"{dotted} is gone (was {_short(old[name])})"
            else:
                yield from _value_changes(old[name], new[name], dotted)
    elif canonical_json(old) != canonical_json(new):
        yield f"{key} was {_short(old)} and is {_short(new)}"


def _hash_changes(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{what} {name} is new"
        elif name not in new:
            yield f"{what} {name} is gone"
        elif old[name] != new[name]:
            yield f"{what} {name} changed"


def _plugin_change(name: str, old: str | None, new: str | None) -> Iterator[str]:
    if old == new:
        return
    if old is None or new is None:
        yield f"plugin {name} is {'new' if old is None else 'gone'}"
        return
    was, now = old.partition(" ")[0], new.partition(" ")[0]
    yield f"plugin {name} was {was} and is {now}" if was != now else f"the source of plugin {name} changed"


def _short(value: JSON, limit: int = 60) -> str:
    text = canonical_json(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
