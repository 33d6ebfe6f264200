"""What counts as advice on a position: order lines, one grammar for the automaton and for the recheck.

`stop`:

    BUY 120 ACME

`scale`:

    want buy 500 ACME -> BUY 120 ACME (scaled to the limit: ES 97.5 % with 500 would be 41200.00 EUR, limit ...)

or `HOLD` alone. In `scale` the part before the arrow is the model's, the part behind it is worked out; BUY and SELL in
capitals are written for what is within the limit only. Whole units, ASCII digits without sign, grouping, decimals,
leading zeros or suffix; the orders of an answer add up. After them, where the recipe allows it, one line `Reason: ` of
ASCII prose without digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from r1core_var.advice_facts import RiskFacts
from r1core_var.advice_risk import RiskModel

MAX_DIGITS = 12
HOLD, REASON = "HOLD", "Reason: "
STOP_LINE = re.compile(
    rf"(?P<side>BUY|SELL) (?P<units>[1-9][0-9]{{0,{MAX_DIGITS - 1}}}) (?P<id>[A-Z0-9.\-]+)", re.ASCII
)
SCALE_LINE = re.compile(
    rf"want (?P<wanted>buy|sell) (?P<asked>[1-9][0-9]{{0,{MAX_DIGITS - 1}}}) (?P<of>[A-Z0-9.\-]+) -> "
    rf"(?:(?P<side>BUY|SELL) (?P<units>[1-9][0-9]{{0,{MAX_DIGITS - 1}}}) (?P<id>[A-Z0-9.\-]+)|no order)"
    r"(?P<why> \([ -~]+\))?",
    re.ASCII,
)
PROSE = re.compile(r"Reason: [ -/:-~]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Order:
    """Units of one instrument (its index), bought or sold."""

    side: str
    units: int
    instrument: int

    @property
    def sign(self) -> int:
        """1 to buy, -1 to sell."""
        return 1 if self.side == "BUY" else -1


@dataclass(frozen=True)
class Desk:
    """The facts of one request and the model of their risk."""

    facts: RiskFacts
    model: RiskModel

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Instruments by index."""
        return tuple(one.id for one in self.facts.instruments)

    @cached_property
    def held(self) -> NDArray[np.float64]:
        """(N,) units before any order."""
        return np.array([one.held for one in self.facts.instruments])

    def after(self, traded: tuple[int, ...], order: Order) -> NDArray[np.float64]:
        """(N,) units held once these net trades and the order are done."""
        return self.held + np.array(traded_with(traded, order), dtype=np.float64)  # whole numbers add up exactly

    def most(self, traded: tuple[int, ...], order: Order) -> int | None:
        """The largest size of the order, up to its own, that is allowed; None where not even 0 is."""
        top = order.units
        if order.side == "SELL" and not self.facts.short:
            held = self.held[order.instrument] + traded[order.instrument]
            top = min(top, int(max(np.floor(held), 0)))
        direction = np.zeros(len(traded))
        direction[order.instrument] = order.sign
        return self.model.largest(lambda q: self.after(traded, Order(order.side, q, order.instrument)), direction, top)

    def fits(self, traded: tuple[int, ...], order: Order) -> bool:
        """Whether the order as it stands is allowed."""
        return self.most(traded, order) == order.units

    def written(self, order: Order) -> str:
        """The order as a line of `stop`."""
        return f"{order.side} {order.units} {self.names[order.instrument]}"

    def limit(self) -> str:
        """The limit, for a citation."""
        return f"facts.risk: {self.facts.measured} at most {self.facts.money(self.facts.limit)}"

    def breach(self, traded: tuple[int, ...], order: Order) -> str:
        """Why an order is not allowed, in one line: position, risk, limit, and what would be."""
        most = self.most(traded, order)
        would = "nothing of it is allowed" if not most else f"at most {most} is allowed"
        return f"{self.written(order)}: {self._why(traded, order)}; {would}"

    def scaled(self, traded: tuple[int, ...], order: Order) -> tuple[Order, str] | None:
        """The order at the size that is allowed, and what stands behind the wish in `scale`; None where 0 is not."""
        most = self.most(traded, order)
        if most is None:
            return None
        made = Order(order.side, most, order.instrument)
        if most == order.units:
            return made, f" -> {self.written(made)}"
        told = self.written(made) if most else "no order"
        return made, f" -> {told} (scaled to the limit: {self._why(traded, order)})"

    def _why(self, traded: tuple[int, ...], order: Order) -> str:
        positions = self.after(traded, order)
        if order.side == "SELL" and not self.facts.short and positions[order.instrument] < 0:
            before = positions[order.instrument] + order.units
            return f"{before:g} held and no short sale allowed"
        facts = self.facts
        would = facts.money(self.model.risk(positions))
        return f"{facts.measured} with {order.units} would be {would}, limit {facts.money(facts.limit)}"


def traded_with(traded: tuple[int, ...], order: Order) -> tuple[int, ...]:
    """The net trades (N,) with one more order."""
    at = order.instrument
    return (*traded[:at], traded[at] + order.sign * order.units, *traded[at + 1 :])
