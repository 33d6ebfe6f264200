"""Units in calculation: what may be added to what, and what a product or a quotient counts.

A dimension maps base units to exponents: USD per share is {USD: 1, share: -1}, percent and ratios are {}. A number
whose unit the text does not state counts as `?`: it may be added to a number of any one unit and then takes that
unit, which the result records as an assumption; it may not be added to a percent (are 3 and 5 % to be 3.05, or 8 %?).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r1core_numeric.values import PURE, Unit

UNSTATED = "?"


class Mismatch(Exception):
    """Two units that do not go together; caught by the executor, which abstains with this reason."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """Base units with exponents.

    Parameters
    ----------
    powers : sorted pairs (base unit, exponent), none zero.
    shown : how a pure number is best shown: `percent`, `basis_point`, `multiple` or "".
    constant : a bare constant (1, 100): it goes with unstated numbers as well.
    """

    powers: tuple[tuple[str, int], ...] = ()
    shown: str = ""
    constant: bool = False

    @property
    def is_pure(self) -> bool:
        """Whether it counts nothing: a ratio, a percentage."""
        return not self.powers

    @property
    def unit(self) -> Unit | None:
        """The unit that it is written in, where one unit (and one "per") says it; an unstated factor is left out."""
        stated = [(name, power) for name, power in self.powers if name != UNSTATED]
        if not stated:
            return Unit(self.shown or "pure") if self.is_pure else Unit()
        up, down = [n for n, p in stated if p == 1], [n for n, p in stated if p == -1]
        if len(up) + len(down) != len(stated) or len(up) != 1 or len(down) > 1:
            return None
        return Unit(up[0], down[0] if down else "")

    def __str__(self) -> str:
        """As `USD·share^-1`."""
        if self.is_pure:
            return self.shown or "pure"
        return "·".join(("unstated" if n == UNSTATED else n) + ("" if p == 1 else f"^{p}") for n, p in self.powers)


def dimension_of(unit: Unit) -> Dimension:
    """The dimension of a unit as it was read."""
    if unit.name in PURE:
        return Dimension(shown="" if unit.name == "pure" else unit.name)
    return _made({unit.name or UNSTATED: 1, **({unit.per: -1} if unit.per else {})})


CONSTANT = Dimension(constant=True)


def _made(powers: Mapping[str, int], shown: str = "") -> Dimension:
    return Dimension(tuple(sorted((n, p) for n, p in powers.items() if p)), shown)


def together(left: Dimension, right: Dimension) -> tuple[Dimension, str]:
    """The dimension of a sum or difference, and the assumption that it rests on ("" for none).

    Raises
    ------
    Mismatch : where the two cannot be added.
    """
    if left.powers == right.powers:
        shown = left.shown if left.shown == right.shown or right.constant else right.shown if left.constant else ""
        return Dimension(left.powers, shown, left.constant and right.constant), ""
    for one, other in ((left, right), (right, left)):
        if one.powers == ((UNSTATED, 1),) and not other.is_pure:
            return other, f"a number without a unit counts as {other}"
        if one.powers == ((UNSTATED, 1),) and other.constant:
            return one, "a constant counts in the unit of the numbers"
        if one.powers == (("year", 1),) and other.constant:
            return one, "a constant counts as years"
    raise Mismatch(f"{left} and {right} cannot be added or compared")


def quotient(left: Dimension, right: Dimension) -> tuple[Dimension, str]:
    """The dimension of a quotient, and the assumption that it rests on.

    A number without a unit divided by money counts as money itself: so many things for a dollar is hardly ever meant.
    """
    if left.powers == ((UNSTATED, 1),) and len(right.powers) == 1 and Unit(right.powers[0][0]).is_currency:
        return product(right, right, -1), f"a number without a unit counts as {right}"
    return product(left, right, -1), ""


def product(left: Dimension, right: Dimension, sign: int = 1) -> Dimension:
    """The dimension of a product (`sign` 1) or a quotient (-1)."""
    powers = dict(left.powers)
    for name, power in right.powers:
        powers[name] = powers.get(name, 0) + sign * power
    shown = left.shown if right.constant else ""
    return _made(powers, shown)
