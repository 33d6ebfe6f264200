"""The instruments that a prompt names, as spans with the risk of the request's portfolio: what the layer reads.

A model cannot sort a thousand losses; this tells it the outcome. A figure r is written as r / (|r| + limit), so that
one half is the limit, nothing is unbounded and a limit of zero is no special case. Nothing is computed for a prompt
whose facts hold no limit, and the constraint does not use these figures: it has the facts themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from r1core.api import JSON, Example, Span, SpanKind
from r1core_var.advice_facts import RiskFacts, risk_facts
from r1core_var.advice_risk import risk_model

KIND = "var/exposure"
FIGURES = ("expected shortfall", "value-at-risk", "expected shortfall that the instrument adds")
WIDTH = len(FIGURES)


def _numbers(value: Sequence[float]) -> list[float]:
    return [float(x) for x in value]


def _decoded(value: JSON) -> tuple[float, ...]:
    return tuple(float(x) for x in value)


EXPOSURE = SpanKind(KIND, _numbers, _decoded, width=WIDTH, feature=_numbers)


class RiskAnnotator:
    """Writes a span of `FIGURES` on every instrument that a prompt names in capitals, as a word of its own."""

    name = KIND
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = (EXPOSURE,)

    def __call__(self, example: Example) -> Example:
        """Return the example with its spans.

        Raises
        ------
        api.UserError : when the facts hold a risk section that cannot be read.
        """
        facts = risk_facts(example)
        if facts is None:
            return example
        told = figures(facts)
        names = "|".join(sorted(map(re.escape, told), key=len, reverse=True))
        word = re.compile(rf"(?<![\w.\-])(?:{names})(?![\w\-])(?!\.\w)")
        found = [
            Span(part, match.start(), match.end(), KIND, told[match.group()])
            for part, message in enumerate(example.messages)
            if message.role != "assistant"
            for match in word.finditer(message.content)
        ]
        return example.with_spans(found)

    def fingerprint(self) -> str:
        """Raise the number when the figures change."""
        return "1"


def figures(facts: RiskFacts) -> dict[str, tuple[float, ...]]:
    """`FIGURES` for each instrument, at the positions held."""
    shortfall = risk_model(facts.model_copy(update={"measure": "es"}))
    value_at_risk = risk_model(facts.model_copy(update={"measure": "var"}))
    held = np.array([one.held for one in facts.instruments])
    whole, quantile = shortfall.risk(held), value_at_risk.risk(held)
    told = {}
    for at, one in enumerate(facts.instruments):
        without = held.copy()
        without[at] = 0.0
        each = (whole, quantile, whole - shortfall.risk(without))
        told[one.id] = tuple(_share(figure, facts.limit) for figure in each)
    return told


def _share(figure: float, limit: float) -> float:
    size = abs(figure) + limit
    return figure / size if size else 0.0
