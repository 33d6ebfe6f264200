"""Spans inside an answer, found while it grows: one reading, for prepare and for decoding alike.

After each token, the annotators of causal kinds are given the prompt and the answer so far. What they find for the
first time stands at the token that was just read: never before the span's last token, nor before the token at which it
was recognised, where that is a later one. A training row is read in the same way, token by token, so a feature
stands on the same token in both, and no text behind a token can change what stands on it or before it. What an
annotator takes back when it has read on (the number 12 that becomes 125) stays where it was. The prompt's images are
seen by every token of the answer.

Not covered: spans of kinds that are not causal; inside an answer there are none. One annotator call a token, each over
the whole answer so far: an answer of T tokens costs O(T²) characters of reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from r1core.api import Example, Message, Span, UserError
from r1core.data.tokens import Renderer, Slot

Annotate = Callable[[Example], Sequence[Span]]
"""From an example that ends in an answer to the spans of causal kinds in that answer (`Chain.in_answer`)."""


class AnswerReader:
    """Reads answers token by token. Build it only where the run has a causal kind or images: reading costs.

    `annotate` : None where no layer reads a causal kind.
    """

    def __init__(self, renderer: Renderer, annotate: Annotate | None) -> None:
        self.renderer, self.annotate = renderer, annotate

    def begin(self, example: Example) -> Growing:
        """An empty answer to an example's prompt; a gold answer that the example holds is not seen."""
        return Growing(self, example.without_answer())

    def annotated(self, example: Example) -> Example:
        """The example with its answer's spans of causal kinds as they are found in reading it token by token.

        Features that stood in the answer before are replaced: what is not found while decoding must not be trained on.

        Raises
        ------
        UserError : for an answer with reasoning.
        """
        if example.without_answer() is example:  # it has none
            return example
        if self.renderer.blocks is not None and self.renderer.blocks.of_row(example).reasoning:
            raise UserError(
                f"example {example.id!r}: its answer has reasoning, which features inside answers do not go with",
                fix="leave the reasoning out, or the plugin whose span kind is causal",
            )
        answer, last = self.begin(example), len(example.messages) - 1
        *tokens, _ = self.renderer.response_ids(example.messages[-1].content)
        found = [span for token in tokens for span in answer.read(token)]
        others = tuple(s for s in example.spans if s.part != last or self.renderer.values(s) is None)
        return replace(example, spans=others).with_spans(found)


class Growing:
    """One answer so far: its tokens, and the spans that are known in it."""

    def __init__(self, reader: AnswerReader, prompt: Example) -> None:
        self._reader, self._prompt = reader, prompt
        self._tokens: list[int] = []
        self._text = ""
        self._known: list[Span] = []

    def read(self, token: int) -> list[Span]:
        """Take one more token; return the spans that are recognised by it."""
        if self._reader.annotate is None:
            return []
        self._tokens.append(token)
        before, self._text = self._text, self._reader.renderer.answer_text(self._tokens)
        if self._text == before:  # the token ends inside a character
            return []
        messages = (*self._prompt.messages, Message("assistant", self._text))
        found = self._reader.renderer.settled(self._reader.annotate(replace(self._prompt, messages=messages)))
        new = [span for span in found if span not in self._known]
        self._known += new
        late = len(self._text)
        return [replace(span, since=None if len(before) < span.end else late) for span in new]

    def take(self, tokens: Sequence[int], place: int) -> tuple[Slot, ...]:
        """Take further tokens, the first of which stands at `place`; return the slots that stand on them."""
        slots = []
        for at, token in enumerate(tokens, place):
            for span in self.read(token):
                values = self._reader.renderer.values(span)
                if values is not None:
                    slots.append(Slot(span.kind, at, at + 1, values))
        return (*slots, *self._reader.renderer.image_slots(self._prompt, place, len(tokens)))

    def ahead(self, tokens: Sequence[int]) -> tuple[Slot, ...]:
        """Slots on these tokens (the first at 0), were they to follow; the answer itself stays as it is."""
        return self.fork().take(tokens, 0)

    def fork(self) -> Growing:
        """A copy that goes on by itself."""
        copy = Growing(self._reader, self._prompt)
        copy._tokens, copy._text, copy._known = [*self._tokens], self._text, [*self._known]
        return copy
