"""What the reader gives: a number with unit, scale, sign convention and place, exact to the last digit.

A `Number` is a quantity, or something with digits that is none (a date, a name such as `Note 5`, an ordinal), or
something that cannot be read without a guess; only the first has a value to calculate with, years have one as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal, cast

from r1core.api import JSON
from r1core_numeric import lexicon

Kind = Literal["quantity", "year", "date", "ordinal", "label", "unread"]
Sign = Literal["none", "minus", "plus", "parentheses", "trailing", "word"]

PURE = {"percent": -2, "basis_point": -4, "multiple": 0, "pure": 0}
"""Units without a dimension, with the power of ten that each stands for."""


MEASURES = frozenset(lexicon.MEASURES.values())


@dataclass(frozen=True, slots=True)
class Unit:
    """What is counted.

    Parameters
    ----------
    name : a currency's ISO 4217 code, `percent`, `basis_point`, `multiple` (3x), `pure` (a ratio), a measure (`share`,
        `year`, ...), or "" where the text states none.
    per : the measure that it is divided by (`share` in "$2.79 per share"), or "".
    """

    name: str = ""
    per: str = ""

    @property
    def power(self) -> int:
        """The power of ten of one such unit: -2 for a percent."""
        return PURE.get(self.name, 0)

    @property
    def is_currency(self) -> bool:
        """Whether it is money."""
        return self.name in lexicon.CURRENCIES

    def __str__(self) -> str:
        """As `USD/share`; "unstated" where there is none."""
        name = self.name or "unstated"
        return f"{name}/{self.per}" if self.per else name


UNSTATED = Unit()


@dataclass(frozen=True, slots=True)
class Cell:
    """Where in a table a number stands: row and column from 0, and the headers that lead to it, outermost first."""

    row: int
    column: int
    row_header: tuple[str, ...] = ()
    column_header: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """Something with digits, as it was read.

    Parameters
    ----------
    text : the original spelling. start, end : its characters in the text, or in its cell.
    kind : only a `quantity` and a `year` have an `amount`.
    amount : signed, as spelled, before `scale` and unit: 1.2 in "$1.2 million".
    scale : the power of ten of "million" (6), of the number itself or of its table's header.
    sign : how the sign was written; accounting's parentheses are negative.
    note : what a reader should know ("scale from the header"), or why it was not read.
    part : the message in which it stands, where that matters.
    """

    text: str
    start: int
    end: int
    kind: Kind
    amount: Decimal | None = None
    scale: int = 0
    unit: Unit = Unit()
    sign: Sign = "none"
    note: str = ""
    cell: Cell | None = None
    part: int = 0

    @property
    def value(self) -> Decimal:
        """The exact value in one unit of its dimension: 1200000 for "$1.2 million", 0.05 for "5 %".

        Raises
        ------
        ValueError : where there is none.
        """
        if self.amount is None:
            raise ValueError(f"{self.text!r} is no quantity ({self.kind}): {self.note or 'it has no value'}")
        sign, digits, exponent = self.amount.as_tuple()
        return Decimal((sign, digits, cast(int, exponent) + self.scale + self.unit.power))

    @property
    def fraction(self) -> Fraction:
        """The value as a rational number."""
        return Fraction(self.value)

    @property
    def stated(self) -> bool:
        """Whether its own spelling holds its scale, so that it means the same wherever it stands."""
        return "header" not in self.note

    def place(self) -> str:
        """Where it stands, in words."""
        if self.cell is None:
            where = f"characters {self.start}-{self.end}"
            return f"message {self.part}, {where}" if self.part else where
        headers = " / ".join([*self.cell.row_header, *self.cell.column_header])
        return f"row {self.cell.row}, column {self.cell.column}" + (f" ({headers})" if headers else "")


def to_json(number: Number) -> JSON:
    """A number as JSON: the amount and the value as strings, so that no digit is lost."""
    found: dict[str, JSON] = {"text": number.text, "start": number.start, "end": number.end, "kind": number.kind}
    if number.amount is not None:
        found |= {"amount": str(number.amount), "scale": number.scale, "value": f"{number.value:f}"}
        found |= {"unit": number.unit.name, "per": number.unit.per, "sign": number.sign}
    found |= {"note": number.note, "part": number.part}
    if number.cell is not None:
        cell = number.cell
        found["cell"] = [cell.row, cell.column, list(cell.row_header), list(cell.column_header)]
    return found


def from_json(found: Mapping[str, JSON]) -> Number:
    """The number that `to_json` wrote."""
    amount = found.get("amount")
    cell = found.get("cell")
    return Number(
        text=found["text"],
        start=found["start"],
        end=found["end"],
        kind=found["kind"],
        amount=None if amount is None else Decimal(amount),
        scale=found.get("scale", 0),
        unit=Unit(found.get("unit", ""), found.get("per", "")),
        sign=found.get("sign", "none"),
        note=found.get("note", ""),
        cell=None if cell is None else Cell(cell[0], cell[1], tuple(cell[2]), tuple(cell[3])),
        part=found.get("part", 0),
    )
