"""Which selection over a prompt's numbers a derivation means: "44.1 - 56.7" over a table in which 44.1 stands twice.

A derivation names amounts, a selection points at numbers. Amounts that stand in several places are told apart by what
the derivation comes to and by how close together the operands stand: in the fewest rows and columns, then as the text
goes. Signs are left to execution: where a cell holds (71) and the derivation writes 71, the order of the operands that
gives the right result is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product

from r1core_numeric.derivations import Derivation
from r1core_numeric.programs import Apply, Node
from r1core_numeric.selection import TWO_GROUPS, Selection, selection_of
from r1core_numeric.values import Number

MOST = 20_000  # assignments that are looked at


def selection_meant(
    derivation: Derivation,
    slots: Sequence[Number],
    right: Callable[[Selection], bool],
    *,
    percentage: bool = False,
) -> Selection | None:
    """Return the selection that a derivation means, or None where no operation covers it or an operand is not there.

    Parameters
    ----------
    slots : numbers of the prompt.
    right : whether a selection comes to the result that is known to be right; of those that do the closest is taken.
    percentage : whether the result is a percentage, which tells `share` from `ratio`.
    """
    shape = selection_of(_unsigned(derivation.expression), percentage=percentage)
    if shape is None:
        return None
    places = [_places(derivation.numbers[at], slots) for at in (*shape.first, *shape.second)]
    found = {one: None for way in islice(product(*places), MOST) for one in _ordered(shape, way)}
    ranked = sorted(found, key=lambda one: _spread([slots[at] for at in (*one.first, *one.second)]))
    return next((one for one in ranked if right(one)), None)


def _unsigned(node: Node) -> Node:
    """An expression without its minus signs in front."""
    if not isinstance(node, Apply):
        return node
    args = tuple(map(_unsigned, node.args))
    return args[0] if node.op in ("negate", "absolute") else replace(node, args=args)


def _places(number: Number, slots: Sequence[Number]) -> list[int]:
    """Where an amount stands, whatever its sign; quantities before years."""
    assert number.amount is not None
    wanted = abs(number.amount)
    found = [at for at, slot in enumerate(slots) if slot.amount is not None and abs(slot.amount) == wanted]
    return sorted(found, key=lambda at: slots[at].kind != "quantity")


def _ordered(shape: Selection, way: Sequence[int]) -> Iterator[Selection]:
    """The selection that gives these numbers to a shape, then the one with its groups exchanged."""
    if len(set(way)) < len(way):
        return
    first, second = tuple(sorted(way[: len(shape.first)])), tuple(sorted(way[len(shape.first) :]))
    yield replace(shape, first=first, second=second)
    if shape.operation in TWO_GROUPS:
        yield replace(shape, first=second, second=first)


def _spread(numbers: Sequence[Number]) -> tuple[int, int, int]:
    """How many stand outside of the table, how many rows and columns they take, and how far apart those are."""
    cells = [number.cell for number in numbers if number.cell]
    rows, columns = {cell.row for cell in cells}, {cell.column for cell in cells}
    apart = sum(max(along) - min(along) for along in (rows, columns) if along)
    return len(numbers) - len(cells), len(rows) + len(columns), apart
