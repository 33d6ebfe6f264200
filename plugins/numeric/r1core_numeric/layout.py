"""A table as lines of text, each cell behind its headers, so that who reads from left to right knows what a cell is.

    (in thousands)
    Sales | 2019: $1,496.5 | 2018: $1,202.9

Every number keeps what the table's headers say of it (scale, unit, cell), with its place in the text. A header that is
written again before each cell of its column counts once, where it stands first; one that stands over all columns is
written once, above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r1core_numeric.reader import DEFAULT, Reading
from r1core_numeric.tables import head_cells, head_rows, read_table
from r1core_numeric.values import Number


@dataclass(frozen=True, slots=True)
class Laid:
    """A table as text.

    Parameters
    ----------
    numbers : of the table, in order of their places; `start` and `end` are characters of `text`.
    """

    text: str
    numbers: tuple[Number, ...]


def lay_out(rows: Sequence[Sequence[str]], reading: Reading = DEFAULT, *, caption: str = "") -> Laid:
    """Write a table as lines, one a row: its label, then each cell that is not empty behind its column's headers.

    Parameters
    ----------
    rows : of cells, as text. caption : stands above, and may state a scale for the whole table.
    """
    writer = _Writer(rows)
    writer.add(f"{caption.strip()}\n" if caption.strip() else "")
    head = head_rows(rows)
    columns = range(1, max(map(len, rows), default=0))
    paths = {column: head_cells(rows, head, column) for column in columns}
    shared = {place for place in paths[1] if all(place in path for path in paths.values())} if len(paths) > 1 else set()
    for row in range(head):
        for place in ((row, 0), *(place for place in shared if place[0] == row)):
            if rows[row] and rows[row][place[1]].strip():
                writer.cell(*place)
                writer.add("\n")
    for row in range(head, len(rows)):
        writer.line(row, {column: [p for p in path if p not in shared] for column, path in paths.items()})
    numbers = []
    for number in read_table(rows, reading, caption=caption):
        assert number.cell is not None
        offset = writer.places.get((number.cell.row, number.cell.column))
        if offset is not None:  # a header over a column without cells is not written
            numbers.append(replace(number, start=number.start + offset, end=number.end + offset))
    return Laid(writer.text.rstrip("\n"), tuple(sorted(numbers, key=lambda number: number.start)))


class _Writer:
    """The text so far, and by cell what to add to an offset in the raw cell for one in the text."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self.text = ""
        self.places: dict[tuple[int, int], int] = {}
        self._rows = rows

    def add(self, text: str) -> None:
        self.text += text

    def cell(self, row: int, column: int) -> None:
        """Write a cell's text on one line; it keeps its length but for the white space around it."""
        raw = self._rows[row][column]
        self.places.setdefault((row, column), len(self.text) - (len(raw) - len(raw.lstrip())))
        self.text += "".join(" " if sign.isspace() else sign for sign in raw.strip())

    def line(self, row: int, paths: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Write a row, each cell behind its headers; nothing where it is empty."""
        written = len(self.text)
        for column, cell in enumerate(self._rows[row]):
            if not cell.strip():
                continue
            self.add(" | " if len(self.text) > written else "")
            for place in paths.get(column, ()):
                self.cell(*place)
                self.add(" ")
            if paths.get(column):
                self.text = f"{self.text[:-1]}: "
            self.cell(row, column)
        self.add("\n" if len(self.text) > written else "")
