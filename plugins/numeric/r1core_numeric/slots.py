"""The numbers of an example, in the order in which programs point at them: those of its messages, then of its table.

Answers (messages of the assistant) hold no slots. A table is the field `table`: rows of cells, or
`{"rows": [...], "caption": "(in thousands)"}`. With `table = "prompt"` the table is written into the prompt and marked
with a span, and its numbers count where they stand there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from r1core.api import Example, SpanKind, UserError
from r1core_numeric.layout import Laid, lay_out
from r1core_numeric.reader import DEFAULT, Reading, read
from r1core_numeric.tables import read_table, rows_of
from r1core_numeric.values import Number

TABLE = "table"
TABLE_KIND = "numeric/table"
TABLE_SPAN = SpanKind(TABLE_KIND, int, int)
"""The characters of a prompt that a table takes; its value is the number of its rows."""

Rows = tuple[tuple[str, ...], ...]


def table_of(example: Example) -> tuple[Rows, str] | None:
    """Rows and caption of an example's table; None where it has none.

    Raises
    ------
    UserError : where its field `table` is no table.
    """
    table = example.fields.get(TABLE)
    if table is None:
        return None
    caption = ""
    if isinstance(table, Mapping):
        caption, table = str(table.get("caption", "")), table.get("rows")
    return rows_of(table, f"example {example.id}: fields.{TABLE}"), caption


@lru_cache(maxsize=64)
def laid_out(rows: Rows, caption: str, reading: Reading) -> Laid:
    """A table as the prompt shows it; kept, since each annotator of an example asks for the same one."""
    return lay_out(rows, reading, caption=caption)


def numbers_of_messages(example: Example, reading: Reading = DEFAULT) -> tuple[Number, ...]:
    """Read every number of an example's prompt; those of a table that is written there are the table's own.

    Raises
    ------
    UserError : where the text that is marked as the table is not that of the field `table`.
    """
    found: list[Number] = []
    for part, message in enumerate(example.messages):
        if message.role == "assistant":
            continue
        text, tables = message.content, list[Number]()
        for span in example.spans:
            if span.kind == TABLE_KIND and span.part == part:
                text = f"{text[: span.start]}{chr(10) * (span.end - span.start)}{text[span.end :]}"
                tables += _of_table(example, reading, part, span.start, span.end)
        found += sorted([*read(text, reading, part), *tables], key=lambda number: number.start)
    return tuple(found)


def slots_of(example: Example, reading: Reading = DEFAULT) -> tuple[Number, ...]:
    """Read every number that an example's prompt states.

    Raises
    ------
    UserError : where its field `table` is no table, or not the one that is written into the prompt.
    """
    found = numbers_of_messages(example, reading)
    table = table_of(example)
    if table is None or any(span.kind == TABLE_KIND for span in example.spans):
        return found
    rows, caption = table
    return (*found, *read_table(rows, reading, caption=caption))


def _of_table(example: Example, reading: Reading, part: int, start: int, end: int) -> tuple[Number, ...]:
    table = table_of(example)
    laid = None if table is None else laid_out(*table, reading)
    if laid is None or example.messages[part].content[start:end] != laid.text:
        told = f"example {example.id}: the table in message {part} is not that of fields.{TABLE}"
        raise UserError(told, fix="state the table in the field alone; the plugin writes it into the prompt")
    return tuple(replace(n, start=n.start + start, end=n.end + start, part=part) for n in laid.numbers)
