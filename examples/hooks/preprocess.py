"""An annotator that marks doses ("5 mg") in every message, and a transform that drops repeated prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from r1core import api

PATTERN = re.compile(r"\b\d+(?:\.\d+)? ?mg\b")


def milligrams(dose: str) -> tuple[float, ...]:
    """What a layer receives for a dose: one number."""
    return (float(dose.removesuffix("mg")),)


# causal: doses are found in an answer too, while it is generated
DOSE = api.SpanKind("preprocess/dose", encode=str, decode=str, width=1, feature=milligrams, causal=True)


class Doses:
    """Annotator: pure, one example in, one example out."""

    name = "preprocess/doses"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds = (DOSE,)

    def __call__(self, example: api.Example) -> api.Example:
        """Add a span for every dose."""
        return example.with_spans(
            api.Span(part, found.start(), found.end(), DOSE.name, found.group())
            for part, message in enumerate(example.messages)
            for found in PATTERN.finditer(message.content)
        )

    def fingerprint(self) -> str:
        """Changes with the pattern."""
        return PATTERN.pattern


class Distinct:
    """Dataset transform: keeps the first record of each prompt. It looks across records and says so."""

    name = "preprocess/distinct"
    after = ("preprocess/doses",)
    before: tuple[str, ...] = ()
    fits_on_data = False
    cross_record = True

    def transform(self, examples: Iterable[api.Example]) -> Iterator[api.Example]:
        """Yield each prompt once."""
        seen: set[tuple[api.Message, ...]] = set()
        for example in examples:
            prompt = tuple(m for m in example.messages if m.role != "assistant")
            if prompt not in seen:
                seen.add(prompt)
                yield example

    def fingerprint(self) -> str:
        """Raise the number when the behaviour changes."""
        return "1"


@api.hookimpl
def preprocess(ctx: api.Context) -> Sequence[api.Annotator | api.DatasetTransform]:
    """Both steps; the order comes from `after` and `before`, not from this list."""
    return [Distinct(), Doses()]
