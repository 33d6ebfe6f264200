"""What each hook may return, and whether a component keeps to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from r1core import api

RETURNS: dict[str, tuple[type, ...]] = {
    "preprocess": (api.Annotator, api.DatasetTransform),
    "reward": (api.Reward,),
    "decode_constraint": (api.DecodeConstraint,),
    "extra_layer": (api.LayerSpec,),
    "privacy": (api.PrivacyPolicy,),
    "difficulty": (api.Difficulty,),
    "model_source": (api.ModelSource,),
    "dataset_source": (api.DatasetSource,),
    "metric": (api.Metric,),
    "quality_gate": (api.QualityGate,),
    "augment": (api.Augment,),
    "callback": (api.Callback,),
    "validate": (api.Problem,),
    "report": (api.ReportSection,),
}
"""Hook to the types of the components that it returns."""

UNNAMED = frozenset({"model_source", "callback", "validate", "report"})
"""Hooks whose components need no `plugin/name`."""

LENIENT = frozenset({"callback", "report"})
"""Hooks that only observe: what fails there is logged and counted. All others fail closed."""


def flatten(result: object) -> Iterator[object]:
    """The components in one hook's result: a single one, an iterable of them, or none."""
    if result is None:
        return
    if isinstance(result, (list, tuple, set, frozenset, Iterator)):
        for one in result:
            yield from flatten(one)
    else:
        yield result


def violations(plugin: str, hook: str, component: object) -> list[str]:
    """Why this component may not be used: its type, what it lacks, its name; [] where it is in order."""
    expected = _meant(hook, component)
    kind = type(component).__name__
    if not isinstance(component, expected):
        lacking = [member for member in members(expected) if not hasattr(component, member)]
        detail = f": it lacks {', '.join(f'`{name}`' for name in lacking)}" if lacking else ""
        return [f"returned {kind}, expected {' or '.join(one.__name__ for one in RETURNS[hook])}{detail}"]
    if hook in UNNAMED:
        return []
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not name.removeprefix(f"{plugin}/") or not name.startswith(f"{plugin}/"):
        return [f"{kind} is named {name!r}, expected `{plugin}/...`"]
    return []


def duplicates(names: Iterable[str]) -> list[str]:
    """The names that occur more than once."""
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]


def members(protocol: type) -> list[str]:
    """The attributes and methods that a protocol asks for."""
    if not getattr(protocol, "_is_protocol", False):
        return []
    methods = [name for name in vars(protocol) if name == "__call__" or not name.startswith("_")]
    return sorted({*protocol.__annotations__, *methods})


def _meant(hook: str, component: Any) -> type:
    """Which of the hook's types the component is meant to be."""
    if hook == "preprocess":
        return api.DatasetTransform if hasattr(component, "transform") else api.Annotator
    return RETURNS[hook][0]
