"""Writing a resolved recipe back as TOML (the standard library only reads it)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from r1core.recipe.schema import Recipe


def to_toml(recipe: Recipe) -> str:
    """A recipe as TOML: every key, defaults included, so that a run's `recipe.toml` needs no domain to be read."""
    text = "\n".join(_toml(recipe.model_dump(mode="json", exclude_none=True), ())) + "\n"
    tomllib.loads(text)
    return text


def _toml(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    scalars = {k: v for k, v in table.items() if not isinstance(v, dict)}
    if path and (scalars or not table):
        yield f"\n[{'.'.join(_key(part) for part in path)}]"
    for key, value in scalars.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(value, (*path, key))


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
