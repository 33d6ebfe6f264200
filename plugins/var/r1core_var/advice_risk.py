"""Whether positions are within a limit, and how much of one more order is: the exact largest whole number of units.

Both answers compare the limit with the risk and a bound of its rounding error (`gate.RiskBound`), so what is allowed
is within the limit in exact arithmetic. Where the two are too close to tell, over scenarios, the risk is worked out
in fractions of the decimals as written: an order that reaches a limit of 100.00 to the cent is allowed. Expected
shortfall, and both measures under the normal model, are convex in the position: what an order may add is one
interval, and its end is found by bisection over whole numbers. Value-at-risk over scenarios is not convex: it can be
within the limit, over it and within again as an order grows. There the candidates are the crossings of each
scenario's loss with the limit, of which the quantile's must be one.
"""

# N = instruments, S = scenarios

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from r1core import api
from r1core_var.advice_facts import RiskFacts
from r1core_var.checks import level_of
from r1core_var.gate import EPSILON, Bounded, RiskBound, tail_weights
from r1core_var.quantiles import ranks

Array = NDArray[np.float64]
Positions = Callable[[int], Array]


class RiskModel(Protocol):
    """The risk of positions (N,), in units of each instrument."""

    def risk(self, positions: Array) -> float:
        """A loss positive, as computed."""
        ...

    def within(self, positions: Array) -> bool:
        """Whether the risk is surely not over the limit."""
        ...

    def largest(self, positions: Positions, direction: Array, most: int) -> int | None:
        """The largest whole q in [0, most] for which `positions(q)` are within the limit; None where there is none.

        `direction` (N,) is what one more unit of q adds to them.
        """
        ...


class ScenarioRisk:
    """Over scenarios (S, N) of one unit's profit and loss."""

    def __init__(self, facts: RiskFacts) -> None:
        self._table = np.array(facts.scenarios, dtype=np.float64)
        self._bound = RiskBound(self._table, tail_weights(len(self._table), facts.level, facts.measure))
        self._limit, self._convex = facts.limit, facts.measure == "es"
        self._level, self._measure, self._rows = facts.level, facts.measure, facts.scenarios or ()
        self._within = ranks(len(self._table), facts.level)[0] + 1  # losses that the limit has to cover, for VaR

    def risk(self, positions: Array) -> float:
        """By the historical model."""
        value, bounded = self._bound.scaled(positions)
        return float(np.ldexp(value, bounded.exponent))

    def within(self, positions: Array) -> bool:
        """By the risk and its rounding error; in fractions where that does not decide."""
        value, above = self._bound.scaled(positions)
        if above.within(self._limit):
            return True
        below = Bounded(2 * value - above.value, above.exponent)
        return below.within(self._limit) and self._exact(positions) <= _decimal(self._limit)

    def _exact(self, positions: Array) -> Fraction:
        """The risk in fractions; only scenarios that can be in the tail are worked out."""
        mass = (1 - level_of(self._level)) * len(self._rows)
        whole = int(mass)
        losses = -(self._table @ positions)
        edge = np.sort(losses)[::-1][min(whole, len(losses) - 1)]
        gross = float((np.abs(self._table) @ np.abs(positions)).max())
        near = np.flatnonzero(losses >= edge - 4.0 * (len(positions) + 4) * EPSILON * gross)
        held = [_decimal(x) for x in positions.tolist()]
        exact = sorted(
            (-sum(_decimal(p) * x for p, x in zip(self._rows[s], held, strict=True)) for s in near), reverse=True
        )
        if self._measure == "var":
            return Fraction(exact[whole])
        part = (mass - whole) * exact[whole] if mass > whole else Fraction(0)
        return (sum(exact[:whole], Fraction(0)) + part) / mass

    def largest(self, positions: Positions, direction: Array, most: int) -> int | None:
        """By bisection where convex, else among the crossings."""
        if self._convex:
            return _bisected(self, positions, most)
        base, slope = -(self._table @ positions(0)), -(self._table @ direction)
        with np.errstate(over="ignore"):
            crossing = (self._limit - base[slope != 0]) / slope[slope != 0]
        whole = np.floor(crossing[(crossing > -1) & (crossing < most)])
        candidates = np.unique(np.clip(np.concatenate([whole - 1, whole, whole + 1, [0, most]]), 0, most))[::-1]
        for some in np.array_split(candidates, -(-len(candidates) // 256)):
            over = base[:, None] + slope[:, None] * some - self._limit
            rounding = 1e-12 * (np.abs(base)[:, None] + np.abs(slope)[:, None] * some + self._limit)
            covered = (over <= rounding).sum(axis=0) >= self._within
            for q in some[covered]:
                if self.within(positions(int(q))):
                    return int(q)
        return None


class NormalRisk:
    """Profit and loss of one unit jointly normal: risk = k * sqrt(x' covariance x) - mean @ x.

    k is the quantile of the standard normal for value-at-risk, its density there over the tail for expected shortfall
    (McNeil, Frey & Embrechts 2015, examples 2.11 and 2.14).

    Raises
    ------
    api.UserError : for a covariance that is not symmetric and positive semi-definite.
    """

    def __init__(self, facts: RiskFacts) -> None:
        self._covariance = np.array(facts.covariance, dtype=np.float64)
        count = len(self._covariance)
        self._mean = np.zeros(count) if facts.mean is None else np.array(facts.mean)
        size = np.abs(self._covariance).max()
        if not np.allclose(self._covariance, self._covariance.T, rtol=1e-12, atol=0.0):
            raise api.UserError("facts.risk.covariance is not symmetric", fix="give a covariance matrix")
        if np.linalg.eigvalsh(self._covariance).min() < -1e-10 * size * count:
            raise api.UserError("facts.risk.covariance has a negative eigenvalue", fix="give a covariance matrix")
        standard = NormalDist()
        quantile = standard.inv_cdf(facts.level)
        self._factor = quantile if facts.measure == "var" else standard.pdf(quantile) / (1.0 - facts.level)
        self._limit = facts.limit

    def risk(self, positions: Array) -> float:
        """By the normal model."""
        variance = max(float(positions @ self._covariance @ positions), 0.0)
        return self._factor * variance**0.5 - float(self._mean @ positions)

    def within(self, positions: Array) -> bool:
        """By the risk and bounds of its rounding errors."""
        gross, slack = np.abs(positions), 4.0 * (len(positions) + 4) * EPSILON
        variance = max(float(positions @ self._covariance @ positions), 0.0)
        variance += slack * float(gross @ np.abs(self._covariance) @ gross)
        drift = float(self._mean @ positions) - slack * float(np.abs(self._mean) @ gross)
        return self._factor * variance**0.5 * (1.0 + slack) - drift <= self._limit

    def largest(self, positions: Positions, direction: Array, most: int) -> int | None:
        """By bisection."""
        return _bisected(self, positions, most)


def _decimal(number: float) -> Fraction:
    """The decimal that a number was written as."""
    return Fraction(repr(float(number)))


def risk_model(facts: RiskFacts) -> RiskModel:
    """The model that the facts have data for."""
    return ScenarioRisk(facts) if facts.scenarios is not None else NormalRisk(facts)


def _bisected(model: RiskModel, positions: Positions, most: int) -> int | None:
    """The largest whole q in [0, most] of an interval: from 0 where that is in it, else from the least risk."""
    low = 0
    if not model.within(positions(0)):
        low = _least(lambda q: model.risk(positions(q)), most)
        if not model.within(positions(low)):
            return None
    high = most
    if model.within(positions(high)):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if model.within(positions(middle)) else (low, middle)
    return low


def _least(convex: Callable[[int], float], most: int) -> int:
    """Where a convex function is least over whole numbers, by the sign of its steps."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if convex(middle) <= convex(middle + 1) else (middle + 1, high)
    return low
