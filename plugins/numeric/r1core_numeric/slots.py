"""The numbers of an example, in the order in which programs point at them: those of its messages, then of its table.

Answers (messages of the assistant) hold no slots. A table is the field `table`: rows of cells, or
`{"rows": [...], "caption": "(in thousands)"}`.
"""

from __future__ import annotations

from collections.abc import Mapping

from r1core.api import Example
from r1core_numeric.reader import DEFAULT, Reading, read
from r1core_numeric.tables import read_table, rows_of
from r1core_numeric.values import Number

TABLE = "table"


def slots_of(example: Example, reading: Reading = DEFAULT) -> tuple[Number, ...]:
    """Read every number that an example's prompt states.

    Raises
    ------
    UserError : where its field `table` is no table.
    """
    found: list[Number] = []
    for part, message in enumerate(example.messages):
        if message.role != "assistant":
            found += read(message.content, reading, part)
    table = example.fields.get(TABLE)
    if table is None:
        return tuple(found)
    caption, where = "", f"example {example.id}: fields.{TABLE}"
    if isinstance(table, Mapping):
        caption, table = str(table.get("caption", "")), table.get("rows")
    return (*found, *read_table(rows_of(table, where), reading, caption=caption))
