"""Programs over the numbers of a text: typed expressions that point at slots, and their JSON form.

    {"op": "percent_change", "args": [{"slot": 3}, {"slot": 1}]}
    {"op": "sum", "args": [{"column": 2, "rows": [3, 7]}]}
    {"op": "subtract", "args": [{"cell": [3, 1]}, {"cell": [3, 2]}]}
    {"op": "subtract", "args": [{"op": "divide", "args": [{"slot": 0}, {"slot": 4}]}, {"constant": "one"}]}

A number can enter in three ways only: as a slot (by its index, or by its cell, row or column), as one of the named
constants, or declared with a reason, which is then part of the result's provenance. There are no variables, loops or
calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from r1core.api import JSON, UserError
from r1core_numeric.formats import Format, format_from_json, format_to_json
from r1core_numeric.values import Number, Unit

CONSTANTS = {
    "zero": 0, "one": 1, "two": 2, "four": 4, "twelve": 12, "hundred": 100, "thousand": 1000, "days_per_year": 365,
    "million": 1_000_000, "ten_thousand": 10_000,
}  # fmt: skip
"""Constants by name; they have no unit."""

OPERATIONS: Mapping[str, tuple[int, int | None, str]] = {
    "add": (2, None, "a + b + ..."),
    "subtract": (2, 2, "a - b"),
    "multiply": (2, None, "a × b × ..."),
    "divide": (2, 2, "a ÷ b"),
    "negate": (1, 1, "-a"),
    "absolute": (1, 1, "|a|"),
    "sum": (1, None, "sum of all, columns and rows unfolded"),
    "average": (1, None, "sum of all, divided by how many they are"),
    "count": (1, None, "how many they are"),
    "maximum": (1, None, "the largest"),
    "minimum": (1, None, "the smallest"),
    "percent_change": (2, 2, "(new - old) ÷ old, as a percentage; of a negative old value too"),
    "ratio": (2, 2, "a ÷ b of one unit, as a multiple"),
    "cagr": (3, 3, "(end ÷ start)^(1 ÷ periods) - 1, as a percentage"),
    "npv": (2, None, "rate, then cash flows at times 0, 1, 2, ..."),
    "irr": (2, None, "the rate at which the cash flows at times 0, 1, 2, ... are worth nothing"),
}
"""Operation to the least and the greatest number of operands, and what it gives."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The number with this index among the numbers that were read, from 0."""

    index: int


@dataclass(frozen=True, slots=True)
class At:
    """The one quantity in a cell of the table; row and column from 0, the head counted."""

    row: int
    column: int

    def among(self, slots: Sequence[Number]) -> list[int]:
        """Indices of the quantities in that cell; not of dates and names, but of what could not be read."""
        place = (self.row, self.column)
        return [
            at
            for at, slot in enumerate(slots)
            if slot.kind in ("quantity", "unread") and slot.cell and (slot.cell.row, slot.cell.column) == place
        ]


@dataclass(frozen=True, slots=True)
class Constant:
    """One of `CONSTANTS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Declared:
    """A number that no text states, with the reason for using it."""

    amount: Decimal
    unit: Unit
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """The quantities of a column (`column`) or a row (`row`) of the table, optionally from one index to another."""

    axis: str
    index: int
    within: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation on operands."""

    op: str
    args: tuple[Node, ...]


Node = Slot | At | Constant | Declared | Line | Apply


def located(node: Node, slots: Sequence[Number]) -> Node:
    """The expression with a slot for each cell that holds one quantity; other cells stay as they are."""
    if isinstance(node, Apply):
        return replace(node, args=tuple(located(arg, slots) for arg in node.args))
    found = node.among(slots) if isinstance(node, At) else []
    return Slot(found[0]) if len(found) == 1 else node


def unlocated(node: Node) -> Iterator[At]:
    """The cells that an expression still points at."""
    if isinstance(node, At):
        yield node
    elif isinstance(node, Apply):
        for arg in node.args:
            yield from unlocated(arg)


@dataclass(frozen=True, slots=True)
class Program:
    """An expression, and how its result is written.

    Parameters
    ----------
    name : what the result is called, for messages and provenance.
    """

    expression: Node
    format: Format = field(default_factory=Format)
    name: str = "result"


def program_from_json(found: JSON, where: str = "program") -> Program:
    """Read a program; a bare expression is one too.

    Raises
    ------
    UserError : for an unknown key, operation or constant, a wrong number of operands, and binary fractions.
    """
    if not isinstance(found, Mapping):
        raise UserError(
            f"{where}: found {type(found).__name__}, expected a JSON object", fix='write {"expression": ...}'
        )
    if "expression" not in found:
        return Program(_node(found, where))
    _known(found, {"expression", "format", "name"}, where)
    form = format_from_json(found.get("format", {}), f"{where}.format")
    return Program(_node(found["expression"], f"{where}.expression"), form, str(found.get("name", "result")))


def program_to_json(program: Program) -> JSON:
    """The JSON form of a program."""
    made = {"expression": node_to_json(program.expression), "format": format_to_json(program.format)}
    return {"name": program.name, **made}


def _known(found: Mapping[str, JSON], keys: set[str], where: str) -> None:
    if unknown := sorted(set(found) - keys):
        raise UserError(f"{where}: unknown key {unknown[0]!r}, expected {', '.join(sorted(keys))}")


def _index(value: JSON, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{where}: found {value!r}, expected an index from 0")
    return value


def _node(found: JSON, where: str) -> Node:
    if not isinstance(found, Mapping):
        told = f"{where}: found {found!r}, expected an object"
        raise UserError(
            told, fix='a number enters as {"slot": 3}, {"constant": "one"} or {"declared": "2.5", "why": "…"}'
        )
    if "slot" in found:
        _known(found, {"slot"}, where)
        return Slot(_index(found["slot"], f"{where}.slot"))
    if "cell" in found:
        _known(found, {"cell"}, where)
        place = found["cell"]
        if not isinstance(place, list | tuple) or len(place) != 2:
            raise UserError(f"{where}.cell: found {place!r}, expected row and column", fix='write {"cell": [3, 1]}')
        return At(*(_index(one, f"{where}.cell") for one in place))
    if "constant" in found:
        _known(found, {"constant"}, where)
        if found["constant"] not in CONSTANTS:
            raise UserError(f"{where}: unknown constant {found['constant']!r}", fix=f"one of {', '.join(CONSTANTS)}")
        return Constant(found["constant"])
    if "declared" in found:
        return _declared(found, where)
    if "column" in found or "row" in found:
        axis, across = ("column", "rows") if "column" in found else ("row", "columns")
        _known(found, {axis, across}, where)
        within = found.get(across)
        if within is not None and (not isinstance(within, list | tuple) or len(within) != 2):
            raise UserError(f"{where}.{across}: found {within!r}, expected the first and the last index")
        ends = None if within is None else (_index(within[0], where), _index(within[1], where))
        return Line(axis, _index(found[axis], f"{where}.{axis}"), ends)
    return _apply(found, where)


def _apply(found: Mapping[str, JSON], where: str) -> Apply:
    _known(found, {"op", "args"}, where)
    op, args = str(found.get("op")), found.get("args")
    if op not in OPERATIONS:
        raise UserError(f"{where}: unknown operation {op!r}", fix=f"one of {', '.join(OPERATIONS)}")
    if not isinstance(args, list | tuple):
        raise UserError(f"{where}.args: found {args!r}, expected a list of operands")
    least, most, _ = OPERATIONS[op]
    nodes = tuple(_node(arg, f"{where}.args[{at}]") for at, arg in enumerate(args))
    unfolds = any(isinstance(node, Line) for node in nodes)
    if unfolds and most is not None:
        raise UserError(f"{where}: `{op}` takes single numbers, not a column or row", fix="take `sum` of it first")
    if (len(nodes) < least and not unfolds) or (most is not None and len(nodes) > most):
        expected = f"{least}" if most == least else f"at least {least}"
        raise UserError(f"{where}: `{op}` has {len(nodes)} operands, expected {expected}")
    return Apply(op, nodes)


def _declared(found: Mapping[str, JSON], where: str) -> Declared:
    _known(found, {"declared", "unit", "why"}, where)
    written, why = found["declared"], found.get("why")
    if not isinstance(written, str) or not re.fullmatch(r"-?\d+(\.\d+)?", written):
        raise UserError(f"{where}.declared: found {written!r}, expected a decimal as text", fix='write "2.5"')
    if not isinstance(why, str) or not why.strip():
        raise UserError(f"{where}: a declared number needs its reason", fix='add "why": "tax rate of 2024"')
    name, _, per = str(found.get("unit", "pure")).partition("/")
    return Declared(Decimal(written), Unit(name, per), why)


def node_to_json(node: Node) -> JSON:
    """The JSON form of an expression."""
    if isinstance(node, Slot):
        return {"slot": node.index}
    if isinstance(node, At):
        return {"cell": [node.row, node.column]}
    if isinstance(node, Constant):
        return {"constant": node.name}
    if isinstance(node, Declared):
        unit = f"{node.unit.name}/{node.unit.per}" if node.unit.per else node.unit.name
        return {"declared": f"{node.amount:f}", "unit": unit, "why": node.why}
    if isinstance(node, Line):
        made: dict[str, JSON] = {node.axis: node.index}
        return made | ({"rows" if node.axis == "column" else "columns": list(node.within)} if node.within else {})
    return {"op": node.op, "args": [node_to_json(arg) for arg in node.args]}
