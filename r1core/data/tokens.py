"""One example as token ids: rendered by the chat template, its spans aligned with tokens, its response supervised.

The supervised region is the last assistant message, with its reasoning or without (`r1core.data.thinking`), and the
end-of-turn token behind it. The prompt's tokens are exactly those that generation would be given. A template that does
not hold a message verbatim is an error, so an offset can never point at the wrong token.

A span of a causal kind inside the answer becomes a slot of one token: the first by which the span, and what it took to
recognise it, had been read. No token before that one can see it (`r1core.data.answers` finds such spans).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1core.api import Example, Message, Span, SpanKind, UserError
from r1core.data.images import IMAGE, ImageBook
from r1core.data.thinking import Blocks, blocks_of, without_block

TASK_TOKEN = -1
"""Stands, as a row's first token id, for the vector of the row's task; no id of a vocabulary."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One span on tokens: `[start, end)` in the row, and the numbers that a layer receives."""

    kind: str
    start: int
    end: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`prompt` and `response` token ids (the response ends with the end-of-turn token) and the aligned spans.

    `task` : of a row that is read by a pool of task adapters, else "".
    """

    id: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    slots: tuple[Slot, ...]
    task: str = ""

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.prompt) + len(self.response)

    def for_base(self) -> Encoded:
        """The row as the base model reads it, without task and task token."""
        prompt, slots = without_task_token(self.prompt, self.slots)
        return replace(self, prompt=prompt, slots=slots, task="")


def prompt_of(example: Example) -> Example:
    """The example as it stands at generation (`Example.without_answer`)."""
    return example.without_answer()


class Renderer:
    """Turns messages into text and tokens for one tokenizer.

    `template` : `chat` is the tokenizer's own chat template (plain where it has none); `plain` is each message's
    content and a newline, which spends no tokens on role markers.
    `routed` : rows keep their task; `task_token` : a place for its vector stands before the prompt.
    `reasoning` : whether a row's reasoning is `supervised` with its answer, or `context` that is only read.
    `images` : numbers the images of the records; None where no tower reads them.
    """

    def __init__(
        self,
        tokenizer: Any,
        kinds: Mapping[str, SpanKind],
        *,
        template: str = "chat",
        routed: bool = False,
        task_token: bool = False,
        reasoning: str = "supervised",
        images: ImageBook | None = None,
    ) -> None:
        self._tokenizer, self._reasoning = tokenizer, reasoning
        self._routed, self._before = routed, (TASK_TOKEN,) if task_token else ()
        self._chat = template == "chat" and tokenizer.chat_template is not None
        self._kinds, self._images = kinds, images
        self._render = lru_cache(maxsize=4096)(self._render_uncached)

    @cached_property
    def blocks(self) -> Blocks | None:
        """How the template leaves a prompt to reasoning; None where the model has none."""
        if not self._chat:
            return None
        return blocks_of(self._tokenizer.chat_template, lambda messages: self._render(messages, True))

    def prompt_text(self, messages: Sequence[Message], *, reasons: bool = False) -> str:
        """The text that generation continues; behind an empty block, unless reasoning is to come first."""
        text = self._render(tuple(messages), True)
        return text if self.blocks is None or reasons else text + self.blocks.block()

    def encode(self, example: Example) -> Encoded:
        """Tokenise a training row.

        Raises
        ------
        UserError : when the last message is not the assistant's, for images that no tower reads, or, for a row with
            spans, when the template alters a message, or the tokenizer an answer; for reasoning without an answer.
        """
        prompt = prompt_of(example)
        if len(prompt.messages) == len(example.messages):
            raise UserError(f"example {example.id!r}: the last message is not the assistant's answer")
        answer = example.messages[-1].content
        block: tuple[int, ...] = ()
        if self.blocks is not None:
            found = self.blocks.of_row(example)
            answer = found.answer or ""
            block = self.start_ids(self.blocks.block(found.reasoning)) if found.reasoning else ()
        ids, slots = self.encode_prompt(prompt, reasons=bool(block))
        response = self.response_ids(answer)
        if self._reasoning == "supervised":
            response = block + response
        else:
            ids += block
        slots += self._answer_slots(example, response[:-1], len(ids))
        read = len(ids) + len(response) - 1
        slots = tuple(replace(slot, end=read) if slot.kind == IMAGE.name else slot for slot in slots)
        return Encoded(example.id, ids, response, slots, example.task if self._routed else "")

    def response_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer with its end-of-turn token."""
        return (*self.start_ids(text), self._tokenizer.eos_token_id)

    def start_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of the start of an answer."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def measured(self, example: Example) -> Example:
        """A row as it is measured: where the model reasons, its gold answer without the reasoning."""
        return example if self.blocks is None else without_block(example, len(example.messages) - 1)

    def encode_prompt(self, example: Example, *, reasons: bool = False) -> tuple[tuple[int, ...], tuple[Slot, ...]]:
        """Token ids of a prompt and its spans on tokens, longest-first where their kind says so.

        `reasons` : reasoning is to come before the answer; else the prompt ends with an empty block.
        """
        for part, message in enumerate(example.messages if self.blocks is not None else ()):
            example = without_block(example, part) if message.role == "assistant" else example
        text = self.prompt_text(example.messages, reasons=reasons)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=bool(example.spans))
        ids = (*self._before, *encoded["input_ids"])
        seen = self.image_slots(example, len(self._before), len(encoded["input_ids"]))
        if not example.spans:
            return ids, seen
        starts = self._message_starts(example, text, reasons)
        offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        slots = [self._slot(example, span, starts, offsets) for span in self.settled(example.spans)]
        return ids, moved((slot for slot in slots if slot is not None), len(self._before)) + seen

    def answer_text(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens so far, without the character that the last of them may leave unfinished."""
        backend = self._tokenizer.backend_tokenizer  # verbatim: transformers' own decoding may tidy up spaces
        return str(backend.decode(list(tokens), skip_special_tokens=False)).rstrip("\ufffd")

    def image_slots(self, example: Example, start: int, length: int) -> tuple[Slot, ...]:
        """The example's images, seen by `length` tokens from `start` on.

        Raises
        ------
        UserError : where no tower is there to read them, or a file is missing.
        """
        if not example.images or length < 1:
            return ()
        if self._images is None:
            raise UserError(
                f"example {example.id!r} has an image, and this recipe has no [model.vision] to read it",
                fix="set model.vision.path to an image encoder's directory, or leave data.columns.images out",
            )
        numbers = (float(self._images.number(path)) for path in example.images)
        return tuple(Slot(IMAGE.name, start, start + length, (number,)) for number in numbers)

    def values(self, span: Span) -> tuple[float, ...] | None:
        """The numbers that a layer receives for a span; None where its kind has none."""
        feature = self._kinds[span.kind].feature
        return None if feature is None else tuple(float(v) for v in feature(span.value))

    def _answer_slots(self, example: Example, tokens: Sequence[int], offset: int) -> tuple[Slot, ...]:
        """Spans of causal kinds inside the answer, each on the token by which it was recognised."""
        last, answer = len(example.messages) - 1, example.messages[-1].content
        spans = [s for s in example.spans if s.part == last and self._kinds[s.kind].causal]
        if not spans:
            return ()
        reached = [len(self.answer_text(tokens[: n + 1])) for n in range(len(tokens))]
        if self.answer_text(tokens) != answer.rstrip("\ufffd"):
            raise UserError(
                f"example {example.id!r}: the tokenizer does not give the answer back verbatim",
                fix="use a tokenizer that keeps the text, or leave features inside answers out",
            )
        slots = []
        for span in spans:
            values, wanted = self.values(span), span.since or span.end
            if values is None:
                continue
            at = next((n for n, length in enumerate(reached) if length >= wanted), None)
            if at is None:
                raise UserError(f"example {example.id!r}: span {span.kind} ends behind the answer")
            slots.append(Slot(span.kind, offset + at, offset + at + 1, values))
        return tuple(slots)

    def _slot(self, example: Example, span: Span, starts: Sequence[int], offsets: NDArray[np.int64]) -> Slot | None:
        values = self.values(span)
        if values is None:
            return None
        low, high = starts[span.part] + span.start, starts[span.part] + span.end
        touched = np.flatnonzero((offsets[:, 0] < high) & (offsets[:, 1] > low))
        if not len(touched):
            raise UserError(
                f"example {example.id!r}: span {span.kind} [{span.start}, {span.end}) of message {span.part} "
                "meets no token",
                fix="the annotator's offsets are outside the message, or the tokenizer drops that text",
            )
        return Slot(span.kind, int(touched[0]), int(touched[-1]) + 1, values)

    def settled(self, spans: Iterable[Span]) -> list[Span]:
        """Spans after each kind's overlap policy, in order of position."""
        kept: list[Span] = []
        taken: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for span in sorted(spans, key=lambda s: (s.start - s.end, s.part, s.start)):
            ranges = taken.setdefault((span.kind, span.part), [])
            overlaps = any(span.start < b and a < span.end for a, b in ranges)
            if self._kinds[span.kind].overlap == "all" or not overlaps:
                ranges.append((span.start, span.end))
                kept.append(span)
        return sorted(kept, key=lambda s: (s.part, s.start, s.end, s.kind))

    def _message_starts(self, example: Example, text: str, reasons: bool) -> list[int]:
        """Offset of each message's content in the rendered text, found by rendering marks in its place."""
        marks = tuple(Message(m.role, f"\x02{i}\x02") for i, m in enumerate(example.messages))
        rest, starts, rebuilt = self.prompt_text(marks, reasons=reasons), [], ""
        for mark, message in zip(marks, example.messages, strict=True):
            literal, found, rest = rest.partition(mark.content)
            rebuilt += literal
            starts.append(len(rebuilt))
            rebuilt += message.content if found else "\0hidden"  # unequal to the text below
        if rebuilt + rest != text:
            raise UserError(
                f"example {example.id!r}: the chat template does not hold every message verbatim",
                fix="use a template that copies the content unchanged, or strip the text in preprocessing",
            )
        return starts

    def _render_uncached(self, messages: tuple[Message, ...], generation: bool) -> str:
        if not self._chat:
            return "".join(m.content + "\n" for m in messages)
        turns = [{"role": m.role, "content": m.content} for m in messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation))


def without_task_token(ids: tuple[int, ...], slots: tuple[Slot, ...]) -> tuple[tuple[int, ...], tuple[Slot, ...]]:
    """A prompt as a model without a pool reads it."""
    return (ids[1:], moved(slots, -1)) if ids[:1] == (TASK_TOKEN,) else (ids, slots)


def moved(slots: Iterable[Slot], by: int) -> tuple[Slot, ...]:
    """Slots that stand this many tokens further on."""
    return tuple(replace(slot, start=slot.start + by, end=slot.end + by) for slot in slots)
