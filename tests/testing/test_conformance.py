"""The kit is judged by what it lets through: one sound plugin, and one flaw at a time that must be told."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from r1core import api
from r1core.testing.conformance import check_plugin

KIND = api.SpanKind("p/word", encode=str, decode=str)
COUNTER = itertools.count()


class Words:
    """Marks the first word of each message; `flaw` spoils one thing."""

    name, after, before = "p/words", (), ()
    span_kinds = (KIND,)

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        if flaw == "codec":
            self.span_kinds = (api.SpanKind("p/word", encode=str, decode=str.lower),)
        elif flaw == "feature":
            self.span_kinds = (api.SpanKind("p/word", encode=str, decode=str, width=2, feature=lambda v: [1.0]),)
        elif flaw == "tidies":
            self.span_kinds = (api.SpanKind("p/word", encode=str, decode=str, causal=True),)
        elif flaw == "foreign kind":
            self.span_kinds = (KIND, api.SpanKind("q/word", encode=str, decode=str))

    def __call__(self, example: api.Example) -> api.Example:
        if self.flaw == "mutates":
            example.fields["seen"] = True  # type: ignore[index]
        if self.flaw == "tidies" and example.messages[-1].content.endswith(" "):
            end = len(example.messages[-1].content)
            example = api.edit(example, len(example.messages) - 1, end - 1, end, "")
        kind = "p/other" if self.flaw == "unregistered" else "p/word"
        spans = []
        for part, message in enumerate(example.messages):
            if words := message.content.split():
                start = message.content.find(words[0])
                end = start + len(words[0]) + (10_000 if self.flaw == "outside" else 0)
                value = f"{words[0]}{next(COUNTER)}" if self.flaw == "random" else words[0]
                spans.append(api.Span(part, start, end, kind, value))
        return example.with_spans(spans)

    def fingerprint(self) -> str:
        return {"no fingerprint": "", "process": str(os.getpid())}.get(self.flaw, "1")


class Sound(api.Plugin):
    flaw = ""

    @api.hookimpl
    def preprocess(self) -> list[api.Annotator]:
        return [Words(self.flaw)]


class PerProcess(Sound):
    flaw = "process"


def plugin(hook: str, *components: object) -> type[api.Plugin]:
    def implementation(self: object) -> list[object]:
        return list(components)

    implementation.__name__ = hook
    return type("Made", (api.Plugin,), {hook: api.hookimpl(implementation), "__qualname__": "<locals>.Made"})


def told(target: object) -> str:
    return "\n".join(check_plugin(target, name="p"))


def test_a_sound_plugin_has_no_failures() -> None:
    assert check_plugin(Sound, name="p") == []


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("mutates", "changed its input"),
        ("random", "two calls on equal input"),
        ("outside", "is outside its text"),
        ("unregistered", "'p/other' is not among its `span_kinds`"),
        ("foreign kind", "'q/word' is not named `p/...`"),
        ("codec", "decode(encode("),
        ("feature", "expected 2 finite numbers"),
        ("tidies", "it has a causal kind and changes the answer so far"),
    ],
)
def test_each_flaw_of_an_annotator_is_told(flaw: str, said: str) -> None:
    assert said in told(plugin("preprocess", Words(flaw)))


def test_an_annotator_that_finds_nothing_is_told() -> None:
    class Blind(Words):
        def __call__(self, example: api.Example) -> api.Example:
            return example

    blank = api.Example("1", (api.Message("user", "fever"),), "t")
    told = (
        "p/words: it writes no span on any of {}, so its spans were not checked; "
        "give `examples` that contain what it looks for"
    )
    blind = plugin("preprocess", Blind())
    assert check_plugin(blind, name="p", examples=[blank]) == [told.format("your examples")]
    assert check_plugin(blind, name="p") == [told.format("the kit's records")], "it does not pass in silence"


class Column:
    """A reward that scores where the record has a column of its own."""

    name = "p/column"

    def __call__(self, prompts: list[str], completions: list[str], **fields: list[Any]) -> list[float | None]:
        return [None if one is None else 1.0 for one in fields.get("grade", [None] * len(completions))]

    def fingerprint(self) -> str:
        return "1"


class Idle:
    """A constraint that applies to prompts about a dose."""

    name = "p/idle"

    def start(self, request: api.DecodeRequest) -> Ban | None:
        return Ban() if "dose" in request.example.messages[-1].content else None

    def fingerprint(self) -> str:
        return "1"


@pytest.mark.parametrize(
    ("hook", "component", "said"),
    [
        ("reward", Column(), "p/column: it abstains on all records, so its scores were not checked"),
        ("decode_constraint", Idle(), "p/idle: it applies to none of the records, so its states were not checked"),
    ],
)
def test_a_component_of_which_nothing_was_seen_is_told_until_it_gets_examples(
    hook: str, component: object, said: str
) -> None:
    seen = api.Example("1", (api.Message("user", "the dose"),), "t", fields={"grade": 3})
    assert told(plugin(hook, component)) == f"{said}; give `examples` that contain what it looks for"
    assert check_plugin(plugin(hook, component), name="p", examples=[seen]) == []


def test_a_fingerprint_that_depends_on_the_process_is_told() -> None:
    assert "p/words: its fingerprint differs between processes" in told(PerProcess)


class Exact:
    name, higher_is_better = "p/exact", True

    def __call__(self, predictions: list[str], references: list[str], examples: list[api.Example]) -> float:
        return sum(map(str.__eq__, predictions, references)) / len(references)


class ExactPerProcess(Exact):
    def fingerprint(self) -> str:
        return str(os.getpid())


class Measuring(api.Plugin):
    @api.hookimpl
    def metric(self) -> list[api.Metric]:
        return [Exact()]


class MeasuringPerProcess(api.Plugin):
    @api.hookimpl
    def metric(self) -> list[api.Metric]:
        return [ExactPerProcess()]


def test_a_metric_may_go_without_a_fingerprint_but_one_that_it_has_must_hold() -> None:
    assert check_plugin(Measuring, name="p") == []
    assert check_plugin(MeasuringPerProcess, name="p") == ["metric:p/exact: its fingerprint differs between processes"]


class Digits:
    """Share of answers that contain a digit: nothing is compared, so no answer is the perfect one."""

    name, higher_is_better = "p/digits", False

    def __call__(self, predictions: list[str], references: list[str], examples: list[api.Example]) -> float:
        return sum(any(map(str.isdigit, answer)) for answer in predictions) / len(predictions)


class Wrong(Exact):
    """Compares, and calls the worse answers better."""

    higher_is_better = False


def test_only_a_metric_that_compares_must_prefer_perfect_answers() -> None:
    assert check_plugin(plugin("metric", Digits()), name="p") == []
    assert told(plugin("metric", Wrong())) == "p/exact: wrong answers (0.0) are better than perfect ones (1.0)"


class Length:
    """Characters of the prompt; `flaw` spoils one thing."""

    name = "p/length"

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw

    def __call__(self, example: api.Example) -> float:
        if self.flaw == "mutates":
            example.fields["seen"] = True  # type: ignore[index]
        drift = next(COUNTER) if self.flaw == "random" else 0
        return float("nan") if self.flaw == "nan" else float(len(example.messages[0].content) + drift)

    def fingerprint(self) -> str:
        return "1"


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("mutates", "not pure"),
        ("random", "not pure"),
        ("nan", "returned nan, expected a finite number"),
    ],
)
def test_each_flaw_of_a_difficulty_is_told(flaw: str, said: str) -> None:
    assert told(plugin("difficulty", Length())) == ""
    assert said in told(plugin("difficulty", Length(flaw)))


def test_a_forgotten_marker_is_told() -> None:
    class Forgot(Sound):
        def reward(self) -> list[object]:
            return []

    assert "`reward` is named like a hook and lacks @api.hookimpl" in told(Forgot)


class Neighbours:
    name, after, before = "p/neighbours", (), ()
    fits_on_data = cross_record = False

    def transform(self, examples: Iterable[api.Example]) -> Iterator[api.Example]:
        return iter(list(examples)[1:])

    def fingerprint(self) -> str:
        return "1"


def test_a_transform_that_hides_its_dependence_is_told() -> None:
    assert "depends on other records, yet `cross_record` is False" in told(plugin("preprocess", Neighbours()))


class Ban:
    """Bans token 5; `flaw` spoils the mask, the reasons or the state."""

    name = "p/ban"

    def __init__(self, flaw: str = "", key: int = 0) -> None:
        self.flaw, self.key = flaw, key

    def start(self, request: api.DecodeRequest) -> Ban:
        return Ban(self.flaw)

    def fingerprint(self) -> str:
        return "1"

    def mask(self) -> api.TokenMask:
        if self.flaw == "bits":
            return api.TokenMask(allowed=np.full(3, 255, np.uint8))
        ids = {"unsorted": [7, 5], "beyond": [5, 10**6]}.get(self.flaw, [5])
        return api.TokenMask(banned=np.array(ids, np.int16 if self.flaw == "dtype" else np.int32))

    def advance(self, token_id: int) -> Ban:
        if self.flaw == "mutable":
            self.key += 1
            return self
        return Ban(self.flaw, self.key + 1)

    def explain(self, token_id: int) -> tuple[api.Reason, ...]:
        return () if self.flaw == "silent" else (api.Reason("r1", "none", "x"),)


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("bits", "expected uint8"),
        ("unsorted", "not sorted, unique"),
        ("beyond", "not sorted, unique and in"),
        ("dtype", "expected int32"),
        ("mutable", "advance changed the state itself"),
        ("silent", "a banned token has no reason"),
        ("", ""),
    ],
)
def test_each_flaw_of_a_constraint_is_told(flaw: str, said: str) -> None:
    failures = told(plugin("decode_constraint", Ban(flaw)))
    assert said in failures if said else not failures


def _layer(
    forward: Callable[[Any, Any, Any], Any] = lambda self, h, f: self.linear(h),
    output: Callable[[Any, Any, Any], object] | None = None,
) -> type[api.Plugin]:
    def factory(size: int) -> Any:
        from torch import nn

        module: Any = type("M", (nn.Module,), {"forward": forward})()
        module.linear = nn.Linear(size, size)
        return module

    class Annotating(Sound):
        @api.hookimpl
        def preprocess(self) -> list[api.Annotator]:
            words = Words()
            words.span_kinds = (api.SpanKind("p/word", str, str, width=1, feature=lambda value: [float(len(value))]),)
            return [words]

        @api.hookimpl
        def extra_layer(self) -> list[api.LayerSpec]:
            return [api.LayerSpec("p/layer", "block:0", factory, kinds=("p/word",), output=output)]

    return Annotating


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda self, h, f: self.linear(h), ""),
        (lambda self, h, f: self.linear(h)[:, :1], "returned shape"),
        (lambda self, h, f: self.linear(h) / 0.0, "changes the hidden state at gate zero"),
        (lambda self, h, f: self.linear(h.cumsum(1).flip(1)), "depends on another token's hidden state"),
        (lambda self, h, f: self.linear(h) + f["p/word"].values.mean(), "values of padded slots"),
        (lambda self, h, f: self.linear(h) + f["p/word"].mask.sum(), "depends on a span over other tokens"),
        (lambda self, h, f: h.detach() * 2, "no parameter receives a gradient"),
        (lambda self, h, f: self.linear(h) / f["p/word"].mask.any(), "not finite where no span is present"),
    ],
)
def test_each_flaw_of_a_layer_is_told(forward: Any, said: str) -> None:
    failures = told(_layer(forward))
    assert said in failures if said else not failures


@dataclass(frozen=True)
class Said:
    """What a layer may say: plain values, arrays and tensors in any nesting."""

    figures: dict[str, Any]
    rows: list[Any]


def _counting(module: Any, hidden: Any, features: Any) -> int:
    module.asked = getattr(module, "asked", 0) + 1
    return module.asked


def _learning(module: Any, hidden: Any, features: Any) -> float:
    module.linear.bias.add_(1.0)
    return 0.0


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda m, h, f: Said({"mean": h.mean(1), "n": f["p/word"].mask.sum()}, [h.numpy(), float(h.sum())]), ""),
        (lambda m, h, f: m(h, f)[0, -1], ""),
        (_counting, "two outputs of one row differ, or depend on the rows that were asked about in between"),
        (_learning, "giving an output changes its weights"),
        (lambda m, h, f: h[0, 1], "plugin 'p' failed in hook 'extra_layer': p/layer: index 1 is out of bounds"),
        (lambda m, h, f: 1 / int(f["p/word"].mask.sum()), "plugin 'p' failed in hook 'extra_layer'"),
    ],
)
def test_each_flaw_of_a_layers_output_is_told(output: Any, said: str) -> None:
    failures = told(_layer(output=output))
    assert said in failures if said else not failures
