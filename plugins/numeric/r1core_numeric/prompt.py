"""Writes an example's table into its prompt, behind the question, where a model reads it and layers read it off."""

from __future__ import annotations

import hashlib

from r1core.api import Example, Span, SpanKind, edit
from r1core_numeric.config import POINTER, NumericConfig
from r1core_numeric.slots import TABLE_KIND, TABLE_SPAN, laid_out, table_of

GAP = "\n\n"


class TableAnnotator:
    """Writes the table behind the first paragraph of the last user message, as `layout` says.

    What a head says of a number is read off at the number itself, so the question and the cell's headers have to stand
    before it; passages may follow as further paragraphs.
    """

    name = "numeric/table"
    after: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = (TABLE_SPAN,)

    def __init__(self, config: NumericConfig) -> None:
        self._config = config
        learnt = ("numeric/choice",) if config.layer == POINTER else ()
        self.before: tuple[str, ...] = ("numeric/number", *learnt)

    def __call__(self, example: Example) -> Example:
        """Return the example with its table in the prompt; as it is where there is none, or where it stands already.

        Raises
        ------
        UserError : where its field `table` is no table.
        """
        table, asked = table_of(example), end_of_question(example)
        if table is None or asked is None or any(span.kind == TABLE_KIND for span in example.spans):
            return example
        laid = laid_out(*table, self._config.reading)
        if not laid.text:
            return example
        part, end = asked
        written = edit(example, part, end, end, GAP + laid.text)
        start = end + len(GAP)
        return written.with_spans([Span(part, start, start + len(laid.text), TABLE_KIND, len(table[0]))])

    def fingerprint(self) -> str:
        """Hash of how numbers are read."""
        return hashlib.sha256(repr(self._config.reading).encode()).hexdigest()


def end_of_question(example: Example) -> tuple[int, int] | None:
    """Message and end of the first paragraph of the last user message, without white space; None without one."""
    for part in range(len(example.messages) - 1, -1, -1):
        message = example.messages[part]
        if message.role == "user":
            text = message.content.rstrip()
            lead = len(text) - len(text.lstrip())
            end = text.find(GAP, lead)
            return (part, len(text[: end if end >= 0 else len(text)].rstrip())) if text.strip() else None
    return None
