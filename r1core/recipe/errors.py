"""What pydantic found wrong with a section of the recipe, as problems with file, line and fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from r1core.api import Problem
from r1core.recipe.problems import did_you_mean
from r1core.recipe.table import Mistake

Where = Callable[[str], str]
"""Dotted key of the recipe to `file:line`, falling back on the nearest table around it."""

_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a string",
    "list": "an array",
    "tuple": "an array",
    "dict": "a table",
    "model": "a table",
    "model_attributes": "a table",
    "path": "a path",
    "date": "a date",
}


def problems(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], where: Where, prefix: str = ""
) -> list[Problem]:
    """One problem for each key that pydantic refused, in the order of the recipe.

    Parameters
    ----------
    data : what was validated; it tells which parts of an error's location are keys and which name union members.
    prefix : dotted key of the section that `model` describes, for instance `plugins.umls`.
    """
    found: dict[tuple[str, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        path = _keys_in(detail, data)
        problem = _problem(detail, path, model, where, prefix)
        if path in found:  # the members of a union each complain of the same key
            known = found[path]
            both = [known.expected] if problem.expected in known.expected else [known.expected, problem.expected]
            problem = replace(known, expected=" or ".join(both))
        found[path] = problem
    return list(found.values())


def _keys_in(detail: ErrorDetails, data: Any) -> tuple[str, ...]:
    """The keys of the location, without the names that pydantic puts in for members of a union."""
    path: list[str] = []
    for part in detail["loc"]:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif detail["type"] != "missing" or part != detail["loc"][-1]:
            continue
        path.append(str(part))
    return tuple(path)


def _problem(detail: ErrorDetails, path: tuple[str, ...], model: type[BaseModel], where: Where, prefix: str) -> Problem:
    key = ".".join(([prefix] if prefix else []) + list(path))
    section, _, last = key.rpartition(".")
    place, kind = where(key), detail["type"]
    if kind == "extra_forbidden":
        known = _fields(model, path[:-1])
        near = did_you_mean(last, known) or (_home(model, last) if len(path) == 1 else "")
        fix = f"did you mean `{near}`?" if near else f"remove `{last}`"
        return Problem(place, f"unknown key `{key}`", f"one of {', '.join(sorted(known)) or 'no key at all'}", fix)
    if kind == "missing":
        fix = f"add `{last} = ...` under [{section}]" if section else f"add a table [{last}]"
        return Problem(place, f"`{key}` is missing", _described(model, path), fix)
    if kind in ("value_error", "assertion_error"):
        said = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        raised = detail.get("ctx", {}).get("error")
        if isinstance(raised, Mistake):
            key = f"{key}.{raised.key}" if raised.key else key
            return Problem(where(key), f"`{key}`: {said}", "", raised.fix)
        return Problem(place, f"`{key or prefix}`: {said}", "", f"change `{key}`" if key else "")
    expected = _described(model, path) if kind == "string_pattern_mismatch" else _expected(detail)
    return Problem(place, f"`{key}` is {_shown(detail['input'])}", expected, _fix(detail, last))


def _home(model: type[BaseModel], name: str) -> str:
    """`table.name` of the first table that has a key of this name, or ""."""
    return next((f"{table}.{name}" for table in model.model_fields if name in _fields(model, [table])), "")


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        return f"one of {detail['ctx']['expected']}"
    stem, _, rest = detail["type"].rpartition("_")
    if rest in ("type", "parsing") and stem in _EXPECTED:
        return _EXPECTED[stem]
    return detail["msg"].removeprefix("Input should be ").removeprefix("a valid ").replace("dictionary", "table")


def _fix(detail: ErrorDetails, last: str) -> str:
    value, kind = detail["input"], detail["type"]
    if kind == "literal_error" and isinstance(value, str):
        near = did_you_mean(value, detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        return f'write {last} = "{near}"' if near else f"set `{last}` to one of these"
    if kind.startswith(("int_", "float_", "bool_")) and isinstance(value, str):
        return f"write {last} = {value} without quotes" if _is_plain(value) else f"set `{last}`"
    if kind == "string_type" and isinstance(value, (int, float)):
        return f"write {last} = {json.dumps(str(value).lower() if isinstance(value, bool) else str(value))}"
    if kind in ("list_type", "tuple_type") and isinstance(value, str):
        return f"write {last} = [{json.dumps(value, ensure_ascii=False)}]"
    return f"change `{last}`"


def _is_plain(value: str) -> bool:
    return value in ("true", "false") or value.lstrip("+-").replace(".", "", 1).replace("_", "").isdigit()


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    kind = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "table"}
    return f"the {kind.get(type(value), type(value).__name__)} {text if len(text) <= 60 else text[:57] + '...'}"


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the keys allowed at this place, found by walking the model's annotations."""
    models = [model]
    for part in path:
        nested: list[type[BaseModel]] = []
        for one in models:
            for name, field in one.model_fields.items():
                if part in (name, field.alias):
                    nested += _models_in(field.annotation)
        models = nested or (models if part.isdigit() else [])
    return [field.alias or name for one in models for name, field in one.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [model for member in inner for model in _models_in(member)]


def _described(model: type[BaseModel], path: Sequence[str]) -> str:
    """What a missing key is for: its description, or the kind of value that it takes."""
    models = [model]
    for part in path[:-1]:
        models = [m for one in models for f in [one.model_fields.get(part)] if f for m in _models_in(f.annotation)]
    for one in models:
        if (field := one.model_fields.get(path[-1])) is not None:
            if field.description:
                return field.description
            if _models_in(field.annotation):
                return "a table"
            kind = field.annotation
            return {str: "a string", int: "an integer", float: "a number", bool: "true or false"}.get(kind, "a value")  # type: ignore[arg-type]
    return "a value"
