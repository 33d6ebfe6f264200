"""`<think>` blocks in prompts and training rows: what each template gets, what the loss sees, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import Example, Message, Span, SpanKind, UserError
from r1core.data.thinking import Parts, no_room, parts
from r1core.data.tokens import Renderer
from r1core.testing.families import reasoning_tokenizer
from r1core.testing.tiny import tiny_tokenizer

KIND = SpanKind("t/all", encode=int, decode=int, overlap="all", width=1, feature=lambda v: [float(v)])
ASK = Message("user", "Which specialty treats angina?")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30)


def renderer(template: str, **options: Any) -> Renderer:
    return Renderer(reasoning_tokenizer(template), {KIND.name: KIND}, **options)


def row(answer: str, *earlier: Message) -> Example:
    return Example("row-7", (*earlier, ASK, Message("assistant", answer)), "t")


def text(template: str, ids: tuple[int, ...]) -> str:
    return str(reasoning_tokenizer(template).decode(list(ids), skip_special_tokens=False))


@pytest.mark.parametrize(
    ("written", "inside", "expected"),
    [
        ("Cardiology", False, Parts("", "Cardiology")),
        ("<think>\nheart\n</think>\n\nCardiology", False, Parts("heart", "Cardiology")),
        ("\n <think>heart</think>Cardiology", False, Parts("heart", "Cardiology")),
        ("<think>\n\n</think>\n\nCardiology", False, Parts("", "Cardiology")),
        ("heart</think> Cardiology", False, Parts("heart", " Cardiology")),
        ("heart\n</think>\nCardiology", True, Parts("heart", "Cardiology")),
        ("<think>heart", False, Parts("heart", None)),
        ("heart", True, Parts("heart", None)),
        ("<think>a</think>b</think>c", False, Parts("a", "b</think>c")),
        ("I think <think> is a mark", False, Parts("", "I think <think> is a mark")),
        ("<think>a</think>", False, Parts("a", "")),
        ("", False, Parts("", "")),
    ],
)
def test_the_rule(written: str, inside: bool, expected: Parts) -> None:
    assert parts(written, inside=inside) == expected


@given(TEXT, TEXT)
@settings(max_examples=200, deadline=None)
def test_what_a_row_is_made_of_is_read_back(reasoning: str, answer: str) -> None:
    reasoning, answer = reasoning.strip(), answer.lstrip("\n")
    for mark in ("<think>", "</think>"):
        reasoning, answer = reasoning.replace(mark, ""), answer.replace(mark, "")
    for template, inside in (("free", False), ("open", True)):
        blocks = renderer(template).blocks
        assert blocks is not None
        assert parts(blocks.block(reasoning.strip()) + answer, inside=inside) == Parts(reasoning.strip(), answer)


TURN = "<|im_start|>user\nWhich specialty treats angina?<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "prompt", "to_reason"),
    [
        ("plain", TURN, TURN),
        ("free", TURN + EMPTY, TURN),
        ("open", TURN + EMPTY, TURN + "<think>\n"),
        ("closed", TURN + EMPTY, TURN + EMPTY),
    ],
)
def test_a_prompt_ends_with_an_empty_block_or_leaves_room_for_reasoning(
    template: str, prompt: str, to_reason: str
) -> None:
    one = renderer(template)
    for reasons, expected in ((False, prompt), (True, to_reason)):
        ids, _ = one.encode_prompt(Example("e", (ASK,), "t"), reasons=reasons)
        assert text(template, ids) == expected == one.prompt_text((ASK,), reasons=reasons)


@pytest.mark.parametrize("template", ["free", "open"])
@pytest.mark.parametrize("reasoning", ["supervised", "context"])
@pytest.mark.parametrize("written", ["<think>chest pain</think>Cardiology", "chest pain\n</think>\nCardiology"])
def test_the_loss_counts_the_reasoning_or_the_answer_alone(template: str, reasoning: str, written: str) -> None:
    one = renderer(template, reasoning=reasoning)
    found = one.encode(row(written))
    whole = TURN + "<think>\nchest pain\n</think>\n\nCardiology<|im_end|>"
    assert text(template, found.prompt + found.response) == whole
    counted = text(template, found.response)
    assert counted == ("Cardiology<|im_end|>" if reasoning == "context" else whole.removeprefix(
        one.prompt_text((ASK,), reasons=True)
    ))  # fmt: skip
    assert found.prompt + found.response == sum_of(renderer(template).encode(row(written)))


def sum_of(encoded: Any) -> tuple[int, ...]:
    return tuple(encoded.prompt + encoded.response)


@pytest.mark.parametrize("template", ["free", "open", "closed"])
def test_a_row_without_reasoning_is_what_generation_without_reasoning_gets(template: str) -> None:
    one = renderer(template)
    for written in ("Cardiology", EMPTY + "Cardiology"):
        found = one.encode(row(written))
        assert found.prompt == one.encode_prompt(Example("e", (ASK,), "t"))[0]
        assert found.response == one.response_ids("Cardiology")


@pytest.mark.parametrize(
    ("template", "written", "said"),
    [
        ("free", "<think>chest", "its <think> is never closed"),
        ("open", "<think>chest</think>\n", "no answer behind its </think>"),
        ("closed", "<think>chest</think>Cardiology", "the model's chat template closes the block"),
    ],
)
def test_a_row_that_has_no_place_or_no_answer_is_refused_by_name(template: str, written: str, said: str) -> None:
    with pytest.raises(UserError, match=f"'row-7': .*{said}"):
        renderer(template).encode(row(written))


def test_earlier_turns_lose_their_blocks_and_spans_move_along() -> None:
    earlier = Message("assistant", "<think>angina?</think>\n\nangina pectoris")
    example = Example("e", (Message("user", "Pain."), earlier, ASK), "t")
    content = earlier.content
    inside, behind = content.index("angina?"), content.index("angina p")
    spans = [
        Span(1, inside, inside + 6, "t/all", 1),
        Span(1, behind, behind + 6, "t/all", 2),
        Span(2, 23, 29, "t/all", 3),
    ]
    ids, slots = renderer("free").encode_prompt(example.with_spans(spans))
    assert "angina?</think>" not in text("free", ids)
    assert "assistant\nangina pectoris<|im_end|>" in text("free", ids)
    assert [slot.values for slot in slots] == [(2.0,), (3.0,)]
    assert all("angina" in text("free", ids[slot.start : slot.end]) for slot in slots)


@pytest.mark.parametrize("written", ["<think>heart</think>Cardiology", "half <think> open", "a </think> b"])
def test_marks_are_text_to_a_model_without_them(written: str) -> None:
    plain = Renderer(tiny_tokenizer(), {})
    assert plain.blocks is None
    found = plain.encode(row(written, Message("user", "Hello"), Message("assistant", written)))
    assert tiny_tokenizer().decode(list(found.response)) == written + "<|im_end|>"
    assert f"assistant\n{written}<|im_end|>" in tiny_tokenizer().decode(list(found.prompt))
    assert plain.measured(row(written)) == row(written)
    assert Renderer(reasoning_tokenizer("open"), {}, template="plain").blocks is None


def test_a_measured_row_holds_the_answer_alone_and_hides_its_columns() -> None:
    written = "<think>heart</think>Cardiology"
    example = Example("e", row(written).messages, "t", fields={"label": written, "clinic": "Cardiology", "n": 3})
    assert example.without_answer().fields == {"n": 3}
    measured = renderer("open").measured(example)
    assert measured.messages[-1].content == "Cardiology"
    assert measured.without_answer().fields == {"n": 3}


def test_reasoning_is_refused_where_there_is_no_room() -> None:
    assert no_room(renderer("open").blocks, "generate.reasoning_tokens", 9) is None
    assert no_room(None, "generate.reasoning_tokens", 0) is None
    assert "has no <think> block" in str(no_room(None, "generate.reasoning_tokens", 9))
    assert "closes the block" in str(no_room(renderer("closed").blocks, "generate.reasoning_tokens", 9))
