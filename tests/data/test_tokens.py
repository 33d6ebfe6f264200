"""Spans on tokens, against transformers' own chat template and the tokenizer's own decoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import Example, Message, Span, SpanKind, UserError
from r1core.data.tokens import Renderer, Slot, prompt_of
from r1core.testing.tiny import CHAT_TEMPLATE, tiny_tokenizer

LONGEST = SpanKind("t/longest", encode=int, decode=int, width=1, feature=lambda v: (float(v),))
ALL = SpanKind("t/all", encode=int, decode=int, overlap="all", width=1, feature=lambda v: (float(v),))
SILENT = SpanKind("t/silent", encode=int, decode=int)
KINDS = {kind.name: kind for kind in (LONGEST, ALL, SILENT)}

AWKWARD = (
    "user",
    "system",
    "assistant",
    "user\nassistant",
    "<|im_start|>",
    "user<|im_end|>",
    "0",
    "患者 😀",
    "e\u0301",
    "  x  ",
)
CONTENTS = st.one_of(st.sampled_from(AWKWARD), st.text(min_size=1, max_size=12))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(tiny_tokenizer(), KINDS)


def with_template(template: str | None) -> Any:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def decoded(ids: tuple[int, ...], slot: Slot) -> str:
    return str(tiny_tokenizer().decode(list(ids[slot.start : slot.end])))


@given(st.lists(CONTENTS, min_size=1, max_size=4), st.data())
@settings(max_examples=120, deadline=None)
def test_a_slots_tokens_hold_the_spans_text(contents: list[str], data: st.DataObject) -> None:
    roles = ["system", "user", "assistant", "user"]
    example = Example("e", tuple(Message(r, c) for r, c in zip(roles, contents, strict=False)), "t")  # type: ignore[arg-type]
    part = data.draw(st.integers(0, len(contents) - 1))
    start = data.draw(st.integers(0, len(contents[part]) - 1))
    end = data.draw(st.integers(start + 1, len(contents[part])))
    ids, slots = Renderer(tiny_tokenizer(), KINDS).encode_prompt(
        example.with_spans([Span(part, start, end, "t/all", 3)])
    )
    (slot,) = slots
    assert slot.values == (3.0,)
    assert contents[part][start:end] in decoded(ids, slot)
    before = str(tiny_tokenizer().decode(list(ids[: slot.start])))
    turns = [{"role": m.role, "content": m.content} for m in example.messages[:part]]
    head = tiny_tokenizer().apply_chat_template(turns, tokenize=False) if turns else ""
    reached = len(head) + len(f"<|im_start|>{roles[part]}\n") + start
    assert len(before.rstrip("\ufffd")) <= reached, "the slot starts behind the span"
    assert reached < len(before) + len(decoded(ids, slot)), "the slot ends before the span"


@given(st.lists(CONTENTS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_prompts_tokens_are_transformers_own(contents: list[str]) -> None:
    turns = [{"role": "user", "content": content} for content in contents]
    messages = tuple(Message("user", content) for content in contents)
    expected = tiny_tokenizer().apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    plain, _ = Renderer(tiny_tokenizer(), KINDS).encode_prompt(Example("e", messages, "t"))
    spanned, _ = Renderer(tiny_tokenizer(), KINDS).encode_prompt(
        Example("e", messages, "t", spans=(Span(0, 0, 1, "t/all", 1),))
    )
    assert list(plain) == list(spanned) == expected


def test_a_training_row_is_the_prompt_that_generation_gets_and_the_answer_with_its_end(renderer: Renderer) -> None:
    messages = (Message("user", "chest pain"), Message("assistant", "Cardiology"))
    row = renderer.encode(Example("e", messages, "t"))
    assert row.prompt == renderer.encode_prompt(Example("e", messages[:1], "t"))[0]
    assert tiny_tokenizer().decode(list(row.response)) == "Cardiology<|im_end|>"
    assert row.length == len(row.prompt) + len(row.response)


def test_a_row_without_an_answer_is_refused_by_name(renderer: Renderer) -> None:
    with pytest.raises(UserError, match=r"'lone'.*not the assistant"):
        renderer.encode(Example("lone", (Message("user", "x"),), "t"))


def test_spans_of_the_answer_do_not_reach_the_prompt(renderer: Renderer) -> None:
    messages = (Message("user", "pain"), Message("assistant", "pain"))
    example = Example("e", messages, "t", spans=(Span(1, 0, 4, "t/all", 1),))
    assert prompt_of(example).spans == ()
    assert renderer.encode(example).slots == ()


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"),
        CHAT_TEMPLATE.replace("message['content']", "message['content'] | upper"),
        CHAT_TEMPLATE.replace("message['content']", "message['content'][:5]"),
        CHAT_TEMPLATE.replace("{{ message['content'] }}", ""),
    ],
    ids=["strips", "upper case", "cuts", "hides"],
)
def test_a_template_that_alters_a_message_is_refused(template: str) -> None:
    example = Example("row-7", (Message("user", "  some pain "),), "t", spans=(Span(0, 2, 6, "t/all", 1),))
    with pytest.raises(UserError, match="'row-7': the chat template does not hold every message verbatim"):
        Renderer(with_template(template), KINDS).encode_prompt(example)


def test_without_a_template_messages_stand_one_a_line() -> None:
    example = Example(
        "e", (Message("system", "brief"), Message("user", "pain")), "t", spans=(Span(1, 0, 4, "t/all", 1),)
    )
    ids, (slot,) = Renderer(with_template(None), KINDS).encode_prompt(example)
    assert tiny_tokenizer().decode(list(ids)) == "brief\npain\n"
    assert "pain" in decoded(ids, slot)


def test_the_longest_of_overlapping_spans_stays_and_all_stay_where_their_kind_says_so(renderer: Renderer) -> None:
    ranges = [(0, 4), (0, 10), (5, 10), (8, 14), (11, 14)]
    text = "abcd efghi jkl"

    def values(kind: str) -> list[float]:
        spans = [Span(0, a, b, kind, i) for i, (a, b) in enumerate(ranges)]
        _, slots = renderer.encode_prompt(Example("e", (Message("user", text),), "t").with_spans(spans))
        return sorted(slot.values[0] for slot in slots)

    assert values("t/longest") == [1.0, 4.0]  # (0, 10) first, then what it leaves free
    assert values("t/all") == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert values("t/silent") == []  # nothing reads this kind


def test_equal_ranges_in_different_messages_do_not_compete(renderer: Renderer) -> None:
    example = Example("e", (Message("user", "pain"), Message("user", "pain")), "t")
    _, slots = renderer.encode_prompt(example.with_spans([Span(p, 0, 4, "t/longest", p) for p in (0, 1)]))
    assert [slot.values for slot in slots] == [(0.0,), (1.0,)]
