"""Spans in a growing answer: on which token they stand, and that nothing behind a token decides what stands on it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import Example, Message, PluginError, Span, SpanKind, UserError, edit
from r1core.compose import Chain
from r1core.data import codec
from r1core.data.answers import AnswerReader
from r1core.data.tokens import Renderer, Slot
from r1core.testing.tiny import tiny_tokenizer

NUMBER = SpanKind("t/number", encode=str, decode=str, width=1, feature=lambda v: (float(len(v)),), causal=True)
EVERY = replace(NUMBER, name="t/every", overlap="all")
NOTE = SpanKind("t/note", encode=str, decode=str, width=1, feature=lambda v: (9.0,))
PIECES = ("12", "125", " ", " mg", "患", "😀", "é", "7 ", "x", "warfarin", "\n", "3.5")
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


class Finds:
    """Annotator of one pattern, in every message."""

    after, before = (), ()

    def __init__(self, pattern: str, *kinds: SpanKind, name: str = "t/finds") -> None:
        self.name, self.span_kinds, self.pattern = name, kinds, re.compile(pattern)
        self.seen: list[Example] = []

    def __call__(self, example: Example) -> Example:
        self.seen.append(example)
        return example.with_spans(
            Span(part, found.start(), found.end(), kind.name, found.group())
            for kind in self.span_kinds
            for part, message in enumerate(example.messages)
            for found in self.pattern.finditer(message.content)
        )

    def fingerprint(self) -> str:
        return self.pattern.pattern


def reading(*steps: Any, tokenizer: Any = None) -> tuple[AnswerReader, Renderer]:
    chain = Chain(steps)
    renderer = Renderer(tokenizer or tiny_tokenizer(), chain.kinds)
    return AnswerReader(renderer, chain.in_answer), renderer


def record(answer: str, **options: Any) -> Example:
    return Example("r", (Message("user", "how much?"), Message("assistant", answer)), "t", **options)


def starts(renderer: Renderer, example: Example) -> list[str]:
    """The answer's text up to and including each of its tokens, by the tokenizer's own decoding."""
    *ids, _ = renderer.response_ids(example.messages[-1].content)
    return [str(tiny_tokenizer().decode(ids[: n + 1])).rstrip("\ufffd") for n in range(len(ids))]


@given(TEXTS, st.sampled_from([r"\d+", r"\d+(?= )", r"\d+(?:\.\d+)? mg", r"[a-z]+$", "患|😀"]))
@settings(max_examples=150, deadline=None)
def test_a_slot_stands_on_the_first_token_by_which_its_span_is_found(text: str, pattern: str) -> None:
    reader, renderer = reading(Finds(pattern, EVERY))
    example = reader.annotated(record(text))
    row = renderer.encode(example)
    expected, known = set(), set()
    for place, read in enumerate(starts(renderer, example)):
        found = {(m.start(), m.end()) for m in re.finditer(pattern, read)}
        expected |= {(place, float(b - a)) for a, b in found - known}
        known |= found
    assert {(slot.start - len(row.prompt), slot.values[0]) for slot in row.slots} == expected
    assert all(slot.end == slot.start + 1 for slot in row.slots)


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=100, deadline=None)
def test_what_follows_never_decides_what_stands_before(common: str, one: str, other: str) -> None:
    reader, renderer = reading(Finds(r"\d+(?:\.\d+)?|x\w*", NUMBER))
    rows = [renderer.encode(reader.annotated(record(common + rest))) for rest in (one, other)]
    whole = [row.prompt + row.response for row in rows]
    alike = next((n for n, pair in enumerate(zip(*whole, strict=False)) if pair[0] != pair[1]), min(map(len, whole)))
    first, second = ([slot for slot in row.slots if slot.start < alike] for row in rows)
    assert first == second


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_decoding_and_training_find_the_same_on_the_same_tokens(text: str) -> None:
    reader, renderer = reading(Finds(r"\d+(?= )|[a-z]{2,}", NUMBER))
    example = reader.annotated(record(text))
    row = renderer.encode(example)
    growing = reader.begin(example)
    assert growing.ahead(row.response[:-1]) == reader.begin(example).take(row.response[:-1], 0)
    found = [slot for n, token in enumerate(row.response[:-1]) for slot in growing.take([token], len(row.prompt) + n)]
    assert sorted(found, key=repr) == sorted(row.slots, key=repr)


def test_right_context_delays_a_span_and_what_is_taken_back_stays() -> None:
    late, _ = reading(Finds(r"\d+(?= )", NUMBER))
    (span,) = late.annotated(record("79 kg")).spans
    assert (span.start, span.end, span.value, span.since) == (0, 2, "79", 3)  # known once the blank is read
    eager, renderer = reading(Finds(r"\d+", NUMBER))
    spans = eager.annotated(record("798")).spans
    assert [(s.value, s.since) for s in spans] == [("7", None), ("79", None), ("798", None)]
    assert len(renderer.response_ids("798")) == 4  # a token a digit, so each was an answer's end once


def test_the_overlap_policy_holds_among_what_is_known_at_a_token() -> None:
    class Suffixes(Finds):
        def __call__(self, example: Example) -> Example:
            last = len(example.messages) - 1
            text = example.messages[last].content
            return example.with_spans(
                Span(last, n, len(text), kind.name, text[n:]) for kind in self.span_kinds for n in range(len(text))
            )

    reader, _ = reading(Suffixes("", NUMBER, EVERY))
    spans = reader.annotated(record("79")).spans
    assert [s.value for s in spans if s.kind == "t/number"] == ["7", "79"]  # the longest of each step
    assert sorted(s.value for s in spans if s.kind == "t/every") == ["7", "79", "9"]


def test_an_answer_is_read_without_the_gold_and_features_in_it_come_from_reading_alone() -> None:
    finds = Finds(r"\d+", NUMBER)
    reader, renderer = reading(finds, Finds("how", NOTE, name="t/notes"))
    brought = (
        Span(0, 0, 3, "t/note", "how"),
        Span(1, 0, 2, "t/number", "brought along"),
    )
    example = reader.annotated(record("79 mg", spans=brought, fields={"label": "79 mg", "ward": "B"}))
    assert [s.value for s in example.spans if s.part == 1] == ["7", "79"]
    assert example.spans[0] == brought[0]
    assert example.fields == {"label": "79 mg", "ward": "B"}
    assert all(seen.fields == {"ward": "B"} for seen in finds.seen)
    assert [seen.messages[-1].content for seen in finds.seen] == starts(renderer, example)
    assert renderer.encode(example).slots[0].values == (9.0,)


def test_a_character_of_several_tokens_is_read_when_it_is_whole() -> None:
    finds = Finds("患", NUMBER)
    reader, renderer = reading(finds)
    example = reader.annotated(record("x患y"))
    assert "\ufffd" not in "".join(seen.messages[-1].content for seen in finds.seen)
    (slot,) = renderer.encode(example).slots
    row = renderer.encode(example)
    assert tiny_tokenizer().decode(list(row.response[: slot.start - len(row.prompt) + 1])) == "x患"


def test_only_kinds_that_declare_it_stand_in_an_answer() -> None:
    renderer = Renderer(tiny_tokenizer(), {kind.name: kind for kind in (NUMBER, NOTE)})
    spans = (Span(1, 0, 2, "t/note", "79"), Span(1, 0, 2, "t/number", "79"))
    row = renderer.encode(record("79 mg", spans=spans))
    assert [(slot.kind, slot.start) for slot in row.slots] == [("t/number", len(row.prompt) + 1)]
    assert Chain([Finds("x", NOTE)]).causal == frozenset()
    assert Chain([Finds("x", replace(NUMBER, width=0, feature=None))]).causal == frozenset()  # nothing to show a layer


def test_a_late_span_survives_its_file() -> None:
    reader, _ = reading(Finds(r"\d+(?= )", NUMBER))
    example = reader.annotated(record("79 kg and 5"))
    assert codec.from_json(codec.to_json(example, {NUMBER.name: NUMBER}), {NUMBER.name: NUMBER}) == example
    assert example.spans[0].since == 3


def test_an_annotator_that_changes_the_answer_is_named() -> None:
    class Tidies(Finds):
        def __call__(self, example: Example) -> Example:
            return edit(example, len(example.messages) - 1, 0, 1, "")

    with pytest.raises(PluginError, match="plugin 't' failed in hook 'preprocess': t/tidies changes the answer"):
        reading(Tidies("x", NUMBER, name="t/tidies"))[0].annotated(record("79 mg"))


def test_a_tokenizer_that_loses_text_is_refused_where_it_matters() -> None:
    from tokenizers import normalizers

    lower = tiny_tokenizer().__class__(
        tokenizer_object=tiny_tokenizer().backend_tokenizer.__class__.from_str(
            tiny_tokenizer().backend_tokenizer.to_str()
        ),
        eos_token="<|im_end|>",
    )
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    reader, renderer = reading(Finds(r"\d+", NUMBER), tokenizer=lower)
    assert renderer.encode(reader.annotated(record("Nothing"))).slots == ()
    with pytest.raises(UserError, match="'r': the tokenizer does not give the answer back verbatim"):
        renderer.encode(reader.annotated(record("Take 12")))


def test_a_message_that_is_no_answer_is_left_alone() -> None:
    reader, _ = reading(Finds(r"\d+", NUMBER))
    asked = Example("q", (Message("user", "12?"),), "t")
    assert reader.annotated(asked) is asked
    assert reader.begin(asked).take([], 0) == ()
    assert isinstance(reader.begin(asked).take(tiny_tokenizer()("79")["input_ids"], 5)[0], Slot)
