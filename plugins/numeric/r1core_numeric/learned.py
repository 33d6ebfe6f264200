"""What the heads are taught: gold roles on the prompt's numbers and the gold operation at the end of its question.

The question is the first paragraph of the last user message: each number is judged where it stands, by a model that
reads from left to right, so ask first.

An example that states a program of one of `selection.OPERATIONS` (field `program`) is marked with it. The marks reach
the loss alone: what the heads choose is computed from hidden states and the numbers' own features, so that an example
that is asked about with its program beside it is answered no better for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from r1core.api import Example, Span, SpanKind, UserError
from r1core_numeric.config import NumericConfig
from r1core_numeric.programs import Program, located, program_from_json, unlocated
from r1core_numeric.prompt import end_of_question
from r1core_numeric.selection import OPERATIONS, Selection, selection_of
from r1core_numeric.slots import numbers_of_messages
from r1core_numeric.values import Number

ROLE_KIND, ASKED_KIND = "numeric/role", "numeric/asked"
UNKNOWN = -1  # the operation of a question whose program is not stated


def _one(value: int) -> tuple[float]:
    return (float(value),)


ROLE = SpanKind(ROLE_KIND, int, int, width=1, feature=_one)
ASKED = SpanKind(ASKED_KIND, int, int, width=1, feature=_one)


class ChoiceAnnotator:
    """Marks where a prompt asks, and what its program, where it states one, would have chosen."""

    name = "numeric/choice"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = (ROLE, ASKED)

    def __init__(self, config: NumericConfig) -> None:
        self._config = config

    def __call__(self, example: Example) -> Example:
        """Return the example with its marks.

        Raises
        ------
        UserError : where its program is in no form that can be read, or points at what is no number of the prompt.
        """
        asked = end_of_question(example)
        kept = replace(example, spans=tuple(s for s in example.spans if s.kind not in (ROLE_KIND, ASKED_KIND)))
        if asked is None:
            return kept
        part, end = asked
        numbers = numbers_of_messages(kept, self._config.reading)
        gold = self._gold(example, numbers)
        operation = UNKNOWN if gold is None else OPERATIONS.index(gold.operation)
        spans = [Span(part, end - 1, end, ASKED_KIND, operation)]
        if gold is not None:
            most = max((*gold.first, *gold.second))
            if most >= len(numbers):
                told = f"example {example.id}: its program points at number {most} of a prompt with {len(numbers)}"
                fix = 'point at numbers of the messages; for a table set plugins.numeric.table = "prompt"'
                raise UserError(told, fix=fix)
            roles = gold.roles(len(numbers))
            spans += [Span(n.part, n.start, n.end, ROLE_KIND, r) for n, r in zip(numbers, roles, strict=True)]
        return kept.with_spans(spans)

    def _gold(self, example: Example, numbers: Sequence[Number]) -> Selection | None:
        stated = example.fields.get(self._config.program)
        if stated is None or (isinstance(stated, list | tuple) and len(stated) != 1):
            return None
        one = stated[0] if isinstance(stated, list | tuple) else stated
        where = f"example {example.id}: fields.{self._config.program}"
        program = one if isinstance(one, Program) else program_from_json(one, where)
        expression = located(program.expression, numbers)
        if (lost := next(unlocated(expression), None)) is not None:
            told = f"{where}: cell [{lost.row}, {lost.column}] is no single quantity of the prompt"
            raise UserError(told, fix='point at a cell with one number, and set plugins.numeric.table = "prompt"')
        return selection_of(expression, percentage=program.format.style == "percent")

    def fingerprint(self) -> str:
        """The field that is read, and the operations in their order."""
        return f"{self._config.program} {' '.join(OPERATIONS)}"
