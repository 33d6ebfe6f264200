"""Checks of annotators and dataset transforms: purity, spans inside the text, codecs, stable fingerprints."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from r1core import api

GROWN = 100
"""Characters up to which an answer grows, one at a time, before an annotator of a causal kind."""


def step(plugin: str, component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one annotator or transform."""
    if hasattr(component, "transform"):
        yield from transform(component, examples)
        return
    for kind in component.span_kinds:
        if not kind.name.startswith(f"{plugin}/"):
            yield f"{component.name}: span kind {kind.name!r} is not named `{plugin}/...`"
        if (kind.width > 0) != (kind.feature is not None):
            yield f"{component.name}: span kind {kind.name!r} has width {kind.width} and feature {kind.feature!r}"
    for example in examples:
        yield from annotated(component, example)
        if any(kind.causal for kind in component.span_kinds):
            yield from followed(component, example)


def followed(component: Any, example: api.Example) -> Iterator[str]:
    """Failures of an annotator of a causal kind on an answer that grows: it reads every start of it, and leaves it."""
    text = example.messages[-1].content
    for end in range(1, min(len(text), GROWN) + 1):
        answer = api.Message("assistant", text[:end])
        growing = replace(example, messages=(*example.messages[:-1], answer), spans=())
        if component(growing).messages[len(growing.messages) - 1 :] != (answer,):
            yield f"{component.name} on {example.id!r}: it has a causal kind and changes the answer so far"
            return


def annotated(component: Any, example: api.Example) -> Iterator[str]:
    """Failures of one annotator on one example."""
    before = copy.deepcopy(example)
    first, second = component(example), component(copy.deepcopy(before))
    at = f"{component.name} on {example.id!r}"
    if example != before:
        yield f"{at}: it changed its input"
    if first != second:
        yield f"{at}: two calls on equal input gave different results"
    kinds = {kind.name: kind for kind in component.span_kinds}
    for span in set(map(_frozen, first.spans)) - set(map(_frozen, before.spans)):
        part, start, end, name, number = *span[:4], span[4]
        length = len(first.messages[part].content) if 0 <= part < len(first.messages) else -1
        if not 0 <= start < end <= length:
            yield f"{at}: span {name} [{start}, {end}) of message {part} is outside its text"
        if name not in kinds:
            yield f"{at}: span kind {name!r} is not among its `span_kinds`"
        else:
            value = next(s.value for s in first.spans if _frozen(s)[:4] == span[:4] and repr(s.value) == number)
            yield from _codec(at, kinds[name], value)


def transform(component: Any, examples: Sequence[api.Example]) -> Iterator[str]:
    """Failures of one dataset transform."""
    before = copy.deepcopy(list(examples))
    first = list(component.transform(iter(examples)))
    second = list(component.transform(iter(copy.deepcopy(before))))
    if list(examples) != before:
        yield f"{component.name}: it changed its input"
    if first != second:
        yield f"{component.name}: two passes over equal input gave different results"
    for flag in ("fits_on_data", "cross_record"):
        if not isinstance(getattr(component, flag), bool):
            yield f"{component.name}: `{flag}` is not a bool"
    if not component.cross_record:
        apart = [made for one in before for made in component.transform(iter([one]))]
        if apart != first:
            yield f"{component.name}: its result depends on other records, yet `cross_record` is False"


def _codec(at: str, kind: api.SpanKind, value: object) -> Iterator[str]:
    try:
        stored = json.loads(json.dumps(kind.encode(value), allow_nan=False))
        if kind.decode(stored) != value:
            yield f"{at}: {kind.name}: decode(encode({value!r})) is {kind.decode(stored)!r}"
        if kind.feature is not None:
            numbers = list(kind.feature(value))
            if len(numbers) != kind.width or not all(math.isfinite(number) for number in numbers):
                yield f"{at}: {kind.name}: feature({value!r}) is {numbers}, expected {kind.width} finite numbers"
    except Exception as error:
        yield f"{at}: {kind.name}: codec or feature of {value!r} raises {type(error).__name__}: {error}"


def _frozen(span: api.Span) -> tuple[int, int, int, str, str]:
    return span.part, span.start, span.end, span.kind, repr(span.value)
