"""Tail risk of a position over scenarios, and the gate that scales an exposure to its limit in closed form.

Losses are positive throughout: a scenario is a profit and loss of one unit of each instrument (or a return), the loss
of exposures `w` in scenario `s` is `-s @ w`. Quantile and tail mean are those of `quantiles.py` (lower quantile, exact
fraction at the edge; the tail mean equals the minimum of Rockafellar & Uryasev 2000). Both, and the smoothed
value-at-risk, are one thing here: non-negative weights on the largest losses in order, adding up to 1.

NumPy alone; the differentiable twin is `layer.py`. Scenarios have equal probability, and positions are linear in them:
an option is right only where each scenario holds its full revaluation.
"""

# N = instruments, S = scenarios, M = largest losses that carry weight

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from r1core import api
from r1core_var.quantiles import ranks, tail

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Measure = Literal["var", "es"]
SMALLEST = 5e-324  # the smallest positive double
EPSILON = 2.0**-52
_ROOM = 300  # binary orders of magnitude that scenarios may have before they are rescaled


@lru_cache(maxsize=256)
def tail_weights(count: int, level: float, measure: Measure = "es", bandwidth: float = 0.0) -> NDArray[np.float64]:
    """(M,) weights of the M largest of `count` losses, the largest first; they are >= 0 and add up to 1.

    Parameters
    ----------
    level : of confidence, for instance 0.99.
    bandwidth : for `var` alone, a fraction: above 0 the quantile is smoothed by an Epanechnikov kernel of this
        half-width in probability (Sheather & Marron 1990, "Kernel quantile estimators").

    Raises
    ------
    api.UserError : for a level outside of (0.5, 1), no scenario, or a bandwidth that is no fraction.
    """
    if count < 1:
        raise api.UserError("no scenarios: a risk needs one at least", fix="give scenarios of shape (S, N)")
    if measure not in ("var", "es"):
        raise api.UserError(f"the risk measure {measure!r} is unknown", fix='give "var" or "es"')
    if not 0.0 <= bandwidth < 1.0 or (bandwidth and measure == "es"):
        raise api.UserError(
            f"bandwidth {bandwidth} for {measure!r}: expected a fraction in [0, 1), for var alone",
            fix="expected shortfall needs no smoothing: leave bandwidth out",
        )
    if measure == "es":
        whole, part, mass = tail(count, level)
        weights = np.append(np.ones(whole), part if part else []) / mass
    elif bandwidth:
        at = np.clip((np.arange(count + 1) / count - (1.0 - level)) / bandwidth, -1.0, 1.0)
        inside = np.diff(0.75 * (at - at**3 / 3.0))
        weights = inside[: int(np.flatnonzero(inside)[-1]) + 1] / inside.sum()
    else:
        weights = np.zeros(count - ranks(count, level)[0])
        weights[-1] = 1.0
    weights.flags.writeable = False
    return weights


def risk_of_losses(losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The weighted mean of the largest of the losses (S,); `weights` as `tail_weights` gives them for S."""
    first = len(losses) - len(weights)
    largest = np.partition(losses, first)[first:]
    if len(weights) > 1:
        largest.sort()
    elif len(losses):
        largest = largest[:1]
    return float(largest[::-1] @ weights)


def portfolio_risk(
    exposures: ArrayLike, scenarios: ArrayLike, *, measure: Measure = "es", level: float = 0.975
) -> float:
    """The risk of exposures (N,) over scenarios (S, N), in the unit of exposure times scenario; a loss is positive.

    Raises
    ------
    api.UserError : for shapes that do not fit, NaN or infinity.
    """
    weights, table = _checked(exposures, scenarios)
    return risk_of_losses(-(table @ weights), tail_weights(len(table), level, measure))


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gate lets through.

    Attributes
    ----------
    exposures : (N,) the scaled exposures, in the dtype that was given (float64 for integers).
    factor : between 0 and 1; 1.0 exactly where the exposures are let through as they are.
    risk : before the gate, the constant included; infinite where it exceeds the doubles.
    """

    exposures: NDArray[np.floating]
    factor: float
    risk: float


def gate(
    exposures: ArrayLike,
    scenarios: ArrayLike,
    limit: float,
    *,
    measure: Measure = "es",
    level: float = 0.975,
    constant: float = 0.0,
) -> Gated:
    """Scale exposures to a risk limit: `factor = min(1, limit / risk(exposures))`, by positive homogeneity.

    Both measures fulfil risk(s w) = s risk(w) for s >= 0 and risk(w) + c for a loss c that is the same in every
    scenario, so with a constant the factor is (limit - constant) / risk(w). What is returned is within the limit in
    exact arithmetic, not only as computed: the limit is compared with the risk and a bound of its rounding error
    (Higham 2002, section 3.1), recomputed from the exposures as rounded to their dtype; the factor steps down until
    it holds.
    Exposures whose risk is within that bound of the limit (some 1e-14 of the gross exposure) are scaled by as little.

    Parameters
    ----------
    exposures : (N,), positive long and negative short. scenarios : (S, N), profit and loss of one unit.
    limit : >= 0, in the unit of the risk; 0 lets nothing through that has any risk.
    constant : a loss that the exposures do not touch (fees; negative for a certain gain), in the same unit.

    Raises
    ------
    api.UserError : for NaN or infinity anywhere, a negative limit, shapes that do not fit, and where the constant
        alone breaches the limit, so that no scaling helps.
    """
    given = np.asarray(exposures)
    given = given if given.dtype.kind == "f" else given.astype(np.float64)
    weights, table = _checked(given, scenarios)
    budget = budget_of(limit, constant)
    bound = RiskBound(table, tail_weights(len(table), level, measure))
    risk, before = bound.scaled(weights)
    with np.errstate(over="ignore"):
        told = float(np.ldexp(risk, before.exponent)) + constant
    if before.within(budget):
        return Gated(given.copy(), 1.0, told)
    if budget < 0:
        raise api.UserError(
            f"the constant loss {constant} alone is over the limit {limit}, so no scaling meets it",
            fix="raise the limit or lower the constant",
        )
    factor, step = before.ratio(budget), EPSILON
    while factor > 0:
        scaled = (weights * factor).astype(given.dtype)
        if bound.scaled(scaled.astype(np.float64))[1].within(budget):
            return Gated(scaled, factor, told)
        factor, step = factor * (1.0 - min(step, 1.0)), step * 2
    return Gated(np.zeros_like(given), 0.0, told)


def budget_of(limit: float, constant: float = 0.0) -> float:
    """What a limit leaves beside a constant loss, rounded down.

    Raises
    ------
    api.UserError : for NaN, infinity or a negative limit.
    """
    if not np.isfinite(limit) or limit < 0:
        raise api.UserError(f"the risk limit is {limit}: expected a number >= 0", fix="give the limit as a loss >= 0")
    if not np.isfinite(constant):
        raise api.UserError(f"the constant loss is {constant}: expected a number", fix="give a finite number")
    left = float(limit) - float(constant)
    if not np.isfinite(left):
        return float(np.finfo(np.float64).max)
    rounded_up = bool(constant) and Fraction(left) > Fraction(float(limit)) - Fraction(float(constant))
    return float(np.nextafter(left, -np.inf)) if rounded_up else left


@dataclass(frozen=True, slots=True)
class Bounded:
    """An upper bound of a risk, `value * 2 ** exponent`, so that no exposure overflows."""

    value: float
    exponent: int

    def within(self, budget: float) -> bool:
        """Whether the risk is surely not over the budget."""
        return self.value <= self._scaled(budget)

    def ratio(self, budget: float) -> float:
        """budget / risk, for a budget >= 0 and a positive bound."""
        return min(self._scaled(budget) / self.value, 1.0)

    def _scaled(self, budget: float) -> float:
        with np.errstate(over="ignore"):
            return float(np.ldexp(budget, -self.exponent))


class RiskBound:
    """Risks over one table of scenarios (S, N), each with an upper bound of what rounding may have hidden."""

    def __init__(self, scenarios: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        reach = np.abs(scenarios).max(axis=0)
        exponent = int(np.frexp(reach.max(initial=0.0))[1])
        self._exponent = exponent if abs(exponent) > _ROOM else 0
        self._table = np.ldexp(scenarios, -self._exponent) if self._exponent else scenarios
        self._reach = np.ldexp(reach, -self._exponent) if self._exponent else reach
        self._weights = weights
        self._slack = float(len(reach) + len(weights) + 8)  # roundings on the way to one risk

    def scaled(self, exposures: NDArray[np.float64]) -> tuple[float, Bounded]:
        """The risk of exposures (N,), divided by 2 ** exponent, and its upper bound with that exponent."""
        largest = np.abs(exposures).max(initial=0.0)
        if largest == 0.0:
            return 0.0, Bounded(0.0, 0)
        exponent = int(np.frexp(largest)[1])
        unit = np.ldexp(exposures, -exponent)
        risk = risk_of_losses(-(self._table @ unit), self._weights)
        gross = float(self._reach @ np.abs(unit))
        margin = self._slack * max(EPSILON * gross, SMALLEST)
        return risk, Bounded(risk + margin, exponent + self._exponent)


def _checked(exposures: ArrayLike, scenarios: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights, table = np.asarray(exposures, dtype=np.float64), np.asarray(scenarios, dtype=np.float64)
    if weights.ndim != 1 or table.ndim != 2 or table.shape[1] != len(weights) or not len(table):
        raise api.UserError(
            f"exposures of shape {weights.shape} over scenarios of shape {table.shape}: expected (N,) and (S, N)",
            fix="give one column of scenarios for each exposure",
        )
    for name, values in (("exposures", weights), ("scenarios", table)):
        if not np.isfinite(values).all():
            raise api.UserError(f"the {name} hold NaN or infinity", fix="leave those rows out or fill them first")
    return weights, table
