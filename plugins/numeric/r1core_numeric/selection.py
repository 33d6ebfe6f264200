"""What the heads choose, an operation over two groups of the prompt's numbers, and the program that it means.

Eight shapes cover most of the arithmetic that annual reports are asked for. Not covered: whatever is deeper, a number
that stands in both groups, and constants other than the count in an average.

O = operations, R = roles, S = numbers of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from r1core_numeric.formats import Format
from r1core_numeric.programs import Apply, Node, Program, Slot

NONE, FIRST, SECOND = range(3)
ROLES = ("none", "first", "second")
"""What a number is to the operation; the index is the class of the role head."""

OPERATIONS = (
    "difference", "percent_change", "ratio", "share", "sum", "average", "product", "difference_of_averages",
)  # fmt: skip
"""Sums of each group stand for it, except in the averages; `share` is a quotient of one unit, written as a percentage.
Those over one group take two numbers or more."""
TWO_GROUPS = frozenset({"difference", "percent_change", "ratio", "share", "difference_of_averages"})


@dataclass(frozen=True, slots=True)
class Selection:
    """An operation and its operands.

    Parameters
    ----------
    first, second : indices of numbers, ascending; `second` is empty where the operation takes one group. Of
        `percent_change` the first is the new value, of `ratio` and `share` the dividend.
    probability : what the heads give to the whole of it; 1 for one that was stated.
    """

    operation: str
    first: tuple[int, ...]
    second: tuple[int, ...] = ()
    probability: float = 1.0

    def program(self, form: Format | None = None) -> Program:
        """The program over slots that it means, its result written by `form`."""
        plain = form or Format()
        if self.operation == "share" and plain.style == "auto":
            plain = replace(plain, style="percent")
        return Program(_EXPRESSIONS[self.operation](self), plain)

    def roles(self, numbers: int) -> tuple[int, ...]:
        """The role of each of the prompt's numbers, (S,)."""
        return tuple(FIRST if at in self.first else SECOND if at in self.second else NONE for at in range(numbers))


def _group(slots: Sequence[int]) -> Node:
    nodes = tuple(map(Slot, slots))
    return nodes[0] if len(nodes) == 1 else Apply("sum", nodes)


def _average(slots: Sequence[int]) -> Node:
    return Apply("average", tuple(map(Slot, slots)))


_EXPRESSIONS = {
    "difference": lambda s: Apply("subtract", (_group(s.first), _group(s.second))),
    "percent_change": lambda s: Apply("percent_change", (_group(s.first), _group(s.second))),
    "ratio": lambda s: Apply("divide", (_group(s.first), _group(s.second))),
    "share": lambda s: Apply("ratio", (_group(s.first), _group(s.second))),
    "sum": lambda s: Apply("sum", tuple(map(Slot, s.first))),
    "average": lambda s: _average(s.first),
    "product": lambda s: Apply("multiply", tuple(map(Slot, s.first))),
    "difference_of_averages": lambda s: Apply("subtract", (_average(s.first), _average(s.second))),
}


def selection_of(expression: Node, *, percentage: bool = False) -> Selection | None:
    """The selection that an expression is, or None where it is none of the eight, or uses a number in both groups.

    Parameters
    ----------
    percentage : whether the result is asked for as a percentage, which tells `share` from `ratio`.
    """
    if not isinstance(expression, Apply):
        return None
    args = expression.args
    groups: tuple[tuple[int, ...] | None, ...]
    if expression.op == "subtract" and all(isinstance(a, Apply) and a.op == "average" for a in args):
        operation, groups = "difference_of_averages", tuple(_slots(a, ("average",)) for a in args)
    elif expression.op in ("subtract", "percent_change", "divide", "ratio"):
        named = {"subtract": "difference", "percent_change": "percent_change"}
        operation = named.get(expression.op, "share" if percentage else "ratio")
        groups = tuple(_slots(a, ("add", "sum")) for a in args)
    elif expression.op in ("add", "sum", "average", "multiply"):
        same = ("add", "sum") if expression.op in ("add", "sum") else (expression.op,)
        operation = {"average": "average", "multiply": "product"}.get(expression.op, "sum")
        groups = (_slots(expression, same), ())
    else:
        return None
    first, second = groups
    if not first or second is None or set(first) & set(second) or len({*first, *second}) < len(first) + len(second):
        return None
    return Selection(operation, tuple(sorted(first)), tuple(sorted(second)))


def _slots(node: Node, through: Sequence[str]) -> tuple[int, ...] | None:
    """The slots that a node joins by these operations; None where there is anything else in it."""
    if isinstance(node, Slot):
        return (node.index,)
    if not isinstance(node, Apply) or node.op not in through:
        return None
    found: list[int] = []
    for arg in node.args:
        part = _slots(arg, through)
        if part is None:
            return None
        found += part
    return tuple(found)


def select(operations: Sequence[float], roles: Sequence[Sequence[float]]) -> Selection | None:
    """The most probable operation with the most probable roles that it allows; None for too few numbers.

    Parameters
    ----------
    operations : log-probability of each of `OPERATIONS`, (O,). roles : of each of `ROLES` for each number, (S, R).
    """
    operation = OPERATIONS[max(range(len(operations)), key=lambda at: operations[at])]
    two = operation in TWO_GROUPS
    allowed = (NONE, FIRST, SECOND) if two else (NONE, FIRST)
    needed = (FIRST, SECOND) if two else (FIRST, FIRST)
    if len(roles) < len(needed):
        return None
    free = [max(allowed, key=lambda role: one[role]) for one in roles]

    def loss(places: Iterable[int]) -> float:
        """What it costs to give the needed roles to these numbers; 0 where they have them anyway."""
        return sum(roles[at][free[at]] - roles[at][role] for at, role in zip(places, needed, strict=True))

    held = dict(zip(min(permutations(range(len(roles)), len(needed)), key=loss), needed, strict=True))
    given = [held.get(at, role) for at, role in enumerate(free)]
    sure = max(operations) + sum(one[role] for one, role in zip(roles, given, strict=True))
    first, second = (tuple(at for at, role in enumerate(given) if role == group) for group in (FIRST, SECOND))
    return Selection(operation, first, second, math.exp(sure))
