"""Arithmetic as people write it, "(1,496.5-1,202.9)/1,202.9", read into programs; nothing is evaluated as code.

    expression := term (("+" | "-") term)*      term := factor (("*" | "×" | "/" | "÷") factor)*
    factor := "-" factor | "$"? "(" expression ")" | "[" expression "]" | number

Numbers are the reader's. Parentheses around one number alone are accounting's minus, as in "-114 - (71)"; around a
number that has a minus already they are brackets. `(a-b)/b` and `a/b-1` become `percent_change`, `(a+b+c)/3` becomes
`average`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from r1core.api import UserError
from r1core_numeric.programs import CONSTANTS, Apply, Constant, Declared, Node, Slot
from r1core_numeric.reader import DEFAULT, Reading
from r1core_numeric.spelling import RUN, read_digits
from r1core_numeric.suffixes import suffix
from r1core_numeric.symbols import DASH, fold
from r1core_numeric.values import UNSTATED, Number, Unit

_OPERATORS = {
    "+": "add",
    "-": "subtract",
    DASH: "subtract",
    "*": "multiply",
    "×": "multiply",
    "/": "divide",
    "÷": "divide",
}
_CURRENCY = {"$": "USD", "€": "EUR", "£": "GBP"}
_BARE = re.compile(rf"\(\s*[$€£]?\s*(?:{RUN.pattern})\s*%?\s*\)")
_NAMES = {Decimal(value): name for name, value in CONSTANTS.items()}


@dataclass(frozen=True, slots=True)
class Derivation:
    """A derivation as a program's expression, with the numbers that its slots point at, in order of appearance."""

    expression: Node
    numbers: tuple[Number, ...]


def read_derivation(text: str, reading: Reading = DEFAULT) -> Derivation:
    """Read a derivation.

    Raises
    ------
    UserError : where it is none, with the place.
    """
    parser = _Parser(text, reading)
    expression = parser.whole()
    return Derivation(_named(expression, parser.numbers), tuple(parser.numbers))


class _Parser:
    def __init__(self, text: str, reading: Reading) -> None:
        self.text, self.folded, self.reading, self.at = text, fold(text), reading, 0
        self.numbers: list[Number] = []

    def whole(self) -> Node:
        node = self._sum()
        if self._next():
            raise self._error("expected an operator or the end")
        return node

    def _next(self) -> str:
        while self.at < len(self.folded) and self.folded[self.at].isspace():
            self.at += 1
        return self.folded[self.at : self.at + 1]

    def _error(self, expected: str) -> UserError:
        return UserError(f"derivation {self.text!r}, character {self.at}: {expected}")

    def _chain(self, operators: str, operand: Callable[[], Node]) -> Node:
        node = operand()
        while (sign := self._next()) and sign in operators:
            self.at += 1
            node = Apply(_OPERATORS[sign], (node, operand()))
        return node

    def _sum(self) -> Node:
        return self._chain(f"+-{DASH}", self._term)

    def _term(self) -> Node:
        return self._chain("*×/÷", self._factor)

    def _factor(self) -> Node:
        sign = self._next()
        if sign and sign in f"-{DASH}":
            self.at += 1
            return Apply("negate", (self._factor(),))
        if sign and sign in _CURRENCY:
            self.at += 1
            return self._bracketed(_CURRENCY[sign]) if self._next() == "(" else self._number(Unit(_CURRENCY[sign]))
        return self._bracketed("") if sign and sign in "([" else self._number(Unit())

    def _bracketed(self, currency: str) -> Node:
        negative = _BARE.match(self.folded, self.at) is not None
        closing = {"(": ")", "[": "]"}[self._next()]
        self.at += 1
        node = self._number(Unit(currency)) if negative and currency else self._sum()
        if self._next() != closing:
            raise self._error(f"expected {closing!r}")
        self.at += 1
        return Apply("negate", (node,)) if negative else node

    def _number(self, unit: Unit) -> Node:
        self._next()
        if not RUN.match(self.folded, self.at):
            raise self._error("expected a number")
        start = self.at
        amount, end, why = read_digits(self.folded, start, self.reading.locale)
        follows = suffix(self.folded, end, unit)
        if amount is None or follows.why:
            raise self._error(why or follows.why)
        self.at = follows.end
        made = Number(self.text[start : self.at], start, self.at, "quantity", amount, follows.scale, follows.unit)
        self.numbers.append(made)
        return Slot(len(self.numbers) - 1)


def _named(node: Node, numbers: Sequence[Number]) -> Node:
    """The expression with the operations that it spells out: averages, percent changes, and 1 as a constant."""
    if not isinstance(node, Apply):
        return node
    args = tuple(_named(arg, numbers) for arg in node.args)
    if node.op == "divide":
        addends, top = _addends(args[0]), args[0]
        if len(addends) > 1 and _plain(args[1], numbers) == len(addends):
            return Apply("average", tuple(addends))
        if isinstance(top, Apply) and top.op == "subtract" and _same(top.args[1], args[1], numbers):
            return Apply("percent_change", (top.args[0], top.args[1]))
    if node.op == "subtract" and _plain(args[1], numbers) == 1:
        top = args[0]
        if isinstance(top, Apply) and top.op == "divide":
            return Apply("percent_change", top.args)
    if node.op in ("add", "subtract") and any(_percentage(arg, numbers) for arg in args):
        args = tuple(Constant("one") if _plain(arg, numbers) == 1 else arg for arg in args)
    return Apply(node.op, args)


def _addends(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.op == "add":
        return [*_addends(node.args[0]), *_addends(node.args[1])]
    return [node]


def _plain(node: Node, numbers: Sequence[Number]) -> Decimal | None:
    """What a number without unit and scale is worth, or a span of years, "2019-2017+1"; None for anything else."""
    if isinstance(node, Slot):
        number = numbers[node.index]
        return number.amount if number.unit == Unit() and not number.scale else None
    if isinstance(node, Apply) and node.op in ("add", "subtract"):
        left, right = (_plain(arg, numbers) for arg in node.args)
        if left is not None and right is not None and max(abs(left), abs(right)) < 10**4:
            return left + right if node.op == "add" else left - right
    return None


def _percentage(node: Node, numbers: Sequence[Number]) -> bool:
    return isinstance(node, Slot) and numbers[node.index].unit.name == "percent"


def _same(left: Node, right: Node, numbers: Sequence[Number]) -> bool:
    """Whether two expressions are the same but for units that one of them leaves out."""
    if isinstance(left, Slot) and isinstance(right, Slot):
        a, b = numbers[left.index], numbers[right.index]
        return a.value == b.value and (a.unit == b.unit or Unit() in (a.unit, b.unit))
    if isinstance(left, Apply) and isinstance(right, Apply) and left.op == right.op:
        pairs = zip(left.args, right.args, strict=True)
        return len(left.args) == len(right.args) and all(_same(a, b, numbers) for a, b in pairs)
    return False


def pointed(derivation: Derivation, slots: Sequence[Number], unit: Unit = UNSTATED) -> tuple[Node, int, int]:
    """Point a derivation's numbers at the slots of the text from which it was derived.

    A number is found where a slot has the same amount as spelled, whatever its sign; slots of the table come first. One
    that is not found becomes a constant where a constant has its value, and is declared otherwise.

    Parameters
    ----------
    unit : of declared numbers without one.

    Returns
    -------
    The expression over `slots`, how many numbers it names that are no constants, and how many of them were found.
    """
    by_amount: dict[Decimal, int] = {}
    for at, slot in sorted(enumerate(slots), key=lambda pair: (pair[1].kind != "quantity", pair[1].cell is None)):
        if slot.amount is not None:
            by_amount.setdefault(slot.amount.copy_abs(), at)
    named = found = 0

    def point(node: Node) -> Node:
        nonlocal named, found
        if isinstance(node, Apply):
            return replace(node, args=tuple(map(point, node.args)))
        if not isinstance(node, Slot):
            return node
        number = derivation.numbers[node.index]
        assert number.amount is not None
        at = by_amount.get(number.amount)
        if at is None and number.amount in _NAMES and number.unit == Unit():
            return Constant(_NAMES[number.amount])
        named += 1
        if at is None:
            stated = number.unit if number.unit != Unit() else unit
            return Declared(number.amount, stated, "as the derivation states it")
        found += 1
        return Apply("absolute", (Slot(at),)) if slots[at].value < 0 else Slot(at)

    return point(derivation.expression), named, found
