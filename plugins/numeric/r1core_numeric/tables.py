"""Numbers of a table: each cell with its headers, its scale from "(in thousands)" and its unit from a `%` in a header.

The head is the rows above the first row that holds a number beside its label; years there are dates. An empty cell of
the head belongs to the header on its left. Not covered: tables on their side, heads in the middle, nested row labels
by indent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1core.api import JSON, UserError
from r1core_numeric.lexicon import CODES, SYMBOLS
from r1core_numeric.reader import DEFAULT, Reading, read, read_cell
from r1core_numeric.symbols import fold
from r1core_numeric.values import Cell, Number, Unit

_SCALES = {"thousand": 3, "000": 3, "million": 6, "billion": 9, "mn": 6, "bn": 9, "m": 6, "k": 3}
_HEADER_SCALE = re.compile(
    r"\b(?:in|amounts in|expressed in)\s+(?:(?P<code>[a-z]{3}|us dollars?|u\.s\. dollars?|dollars|euros?|[$€£¥]+"
    r"|us\$)\s+)?"
    r"(?:of\s+)?(?P<word>thousand|million|billion)s?\b(?:\s+of\s+(?P<of>us dollars|dollars|euros?|[a-z]{3}\b))?"
    r"|(?P<code2>us\$|[$€£¥]|\b[a-z]{3})\s?'?(?P<word2>million|billion|thousand|000|mn|bn|m|k)s?(?![\w])"
    r"|\(\s*(?P<word3>thousand|million|billion)s?\s*\)|(?<![\d,.])'?(?P<word4>000)'?s(?!\w)"
)
_WORDS = {"dollars": "USD", "dollar": "USD", "us dollars": "USD", "us dollar": "USD", "u.s. dollars": "USD",
          "euro": "EUR", "euros": "EUR", "us$": "USD"}  # fmt: skip
_YEAR = re.compile(r"(?:fy\s?)?(?:19|20)\d\d(?:e|a)?(?:\s*[*(].*)?$")
_SHARE_ROW = re.compile(r"\bper (?:common |ordinary |diluted |basic )?share\b|\beps\b")
_SHARES_ROW = re.compile(r"\bshares\b|\bnumber of\b|\bemployees\b")
_PERCENT = re.compile(r"%|\bpercent(?:age)?\b")


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a header says of the cells under it: a power of ten (None: nothing), and a currency ("" : none)."""

    scale: int | None = None
    currency: str = ""


def scaling(header: str) -> Scaling:
    """Read "(in thousands)", "$ in millions", "US$ million", "$000" and their like out of a header or a caption."""
    found = _HEADER_SCALE.search(fold(header))
    if found is None:
        return Scaling()
    word = next(w for w in (found["word"], found["word2"], found["word3"], found["word4"]) if w)
    code = found["code"] or found["of"] or found["code2"] or ""
    currency = _WORDS.get(code) or SYMBOLS.get(code) or (code.upper() if code.upper() in CODES else "")
    if found["code2"] and not currency:
        return Scaling()
    return Scaling(_SCALES[word], currency)


def rows_of(table: JSON, where: str) -> tuple[tuple[str, ...], ...]:
    """Check that a value is a table, a list of rows of cells, and return its cells as text.

    Raises
    ------
    UserError : where it is none.
    """
    if not isinstance(table, list | tuple) or not all(isinstance(row, list | tuple) for row in table):
        raise UserError(
            f"{where}: found {type(table).__name__}, expected a list of rows", fix='write [["", "2019"], …]'
        )
    for at, row in enumerate(table):
        for cell in row:
            if not isinstance(cell, str | int | None) or isinstance(cell, bool):
                told = f"{where}: row {at} holds {cell!r}, expected text"
                raise UserError(told, fix="write numbers as text: a binary fraction is not the number that was written")
    return tuple(tuple("" if cell is None else str(cell) for cell in row) for row in table)


def read_table(rows: Sequence[Sequence[str]], reading: Reading = DEFAULT, *, caption: str = "") -> tuple[Number, ...]:
    """Read every number of a table, row by row; offsets count within the cell.

    Parameters
    ----------
    rows : of cells, as text; rows may differ in length.
    caption : text above the table that may state a scale for all of it.
    """
    head = head_rows(rows)
    found: list[Number] = []
    for r, row in enumerate(rows):
        label = tuple(cell.strip() for cell in _label(row) if cell.strip()) if r >= head else ()
        for c, text in enumerate(row):
            above = tuple(rows[y][x].strip() for y, x in head_cells(rows, head, c))
            place = Cell(r, c, label if c else (), above if r >= head else above[: min(r, len(above))])
            whole = read_cell(text, reading)
            if whole is None or r < head or (c == 0 and _YEAR.match(fold(text.strip()))):
                found += [replace(number, cell=place) for number in read(text, reading)]
            else:
                found.append(_scaled(replace(whole, cell=place), [*above], label, rows, head, caption))
    return tuple(found)


def _scaled(
    number: Number,
    above: list[str],
    label: tuple[str, ...],
    rows: Sequence[Sequence[str]],
    head: int,
    caption: str,
) -> Number:
    """The number with what its headers say: a percent sign, a scale, a currency; what it says itself comes first."""
    if number.amount is None:
        return number
    of_row = fold(" ".join(label))
    if not number.unit.name and _PERCENT.search(fold(" ".join(above[-1:]))):
        return replace(number, unit=Unit("percent"), note="percent from the header")
    if not number.unit.name and "%" in of_row:
        return replace(number, unit=Unit("percent"), note="percent from the header of the row")
    if number.unit.name in ("percent", "basis_point", "multiple") or number.scale:
        return number
    per_share = _SHARE_ROW.search(of_row) is not None
    stub = [cell for row in rows[:head] for cell in _label(row)]
    every = [*label[::-1], *above[::-1], *stub, *(cell for row in rows[:head] for cell in row), caption]
    said = next((s for s in map(scaling, every) if s.scale is not None), Scaling())
    unit = number.unit
    if not unit.name and said.currency and not _SHARES_ROW.search(of_row):
        unit = Unit(said.currency)
    if per_share:
        unit = Unit(unit.name, "share") if unit.is_currency else unit
        return replace(number, unit=unit)
    if said.scale is None or (_SHARES_ROW.search(of_row) and "except" in fold(" ".join([caption, *every]))):
        return replace(number, unit=unit)
    return replace(number, scale=said.scale, unit=unit, note="scale from the header")


def _label(row: Sequence[str]) -> Sequence[str]:
    """The cells at the start of a row that hold its label: the first."""
    return row[:1]


def head_rows(rows: Sequence[Sequence[str]]) -> int:
    """How many rows belong to the head: those above the first one with a number beside its label that is no year."""
    for at, row in enumerate(rows):
        for cell in row[1:]:
            number = read_cell(cell)
            if number is not None and number.kind != "unread" and not _YEAR.match(fold(cell.strip())):
                return at
    return min(1, len(rows))


def head_cells(rows: Sequence[Sequence[str]], head: int, column: int) -> list[tuple[int, int]]:
    """Row and column of the headers over a column, outermost first; an empty one is the one on its left."""
    found = []
    for at, row in enumerate(rows[:head]):
        columns = range(min(column, len(row) - 1), 0, -1) if column else range(min(1, len(row)))
        last = next((one for one in columns if row[one].strip()), None)
        if last is not None:
            found.append((at, last))
    return found
