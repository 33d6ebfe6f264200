"""Relative paths are meant relative to the file that says them: made absolute before a model is validated.

Which values are paths is read from the pydantic model: fields of type `Path`, alone, optional, in a list, tuple or
dict, or inside a nested model. A field that also takes plain strings is left alone, since its text may not be a path.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

OriginDir = Callable[[str], Path]
"""Dotted key of the recipe to the directory of what set it."""


def absolute(
    model: type[BaseModel], data: Mapping[str, Any], origin_dir: OriginDir, prefix: str = ""
) -> dict[str, Any]:
    """Copy of `data` in which every relative path stands absolute; keys that the model lacks are kept as they are."""
    result = dict(data)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in result:
            dotted = f"{prefix}.{key}" if prefix else key
            result[key] = _value(field.annotation, result[key], origin_dir, dotted)
    return result


def _value(annotation: Any, value: Any, origin_dir: OriginDir, key: str) -> Any:
    kinds = _alternatives(annotation)
    if isinstance(value, str) and str not in kinds and any(_is_path(kind) for kind in kinds):
        path = Path(value).expanduser()
        return str(path if path.is_absolute() else origin_dir(key) / path)
    for kind in kinds:
        origin, inner = get_origin(kind), get_args(kind)
        if isinstance(value, dict):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return absolute(kind, value, origin_dir, key)
            if isinstance(origin, type) and issubclass(origin, Mapping) and len(inner) == 2:
                return {name: _value(inner[1], one, origin_dir, f"{key}.{name}") for name, one in value.items()}
        elif isinstance(value, list) and isinstance(origin, type) and inner:
            return [_value(inner[0], one, origin_dir, f"{key}.{number}") for number, one in enumerate(value)]
    return value


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, unfolded; `Annotated` is looked through."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Path)
