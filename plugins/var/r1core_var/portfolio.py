"""Portfolios of least expected shortfall (CVaR), mean against CVaR, equal weight; walk-forward with standard errors.

The linear programme of Rockafellar & Uryasev (2000) is solved in its dual, which has one row for each asset and one
boxed variable for each scenario, by the dual simplex of HiGHS, and over few scenarios: those that are surely in the
tail count as their loss, those that are surely not as nothing, and only those near the quantile are variables. That
is a relaxation, so its value is a lower bound; scenarios that its solution classifies otherwise become variables, and
it ends when the bound meets the risk of the weights found (usually the third round). The idea of fixing scenarios far
from the quantile is old (for instance Kuenzi-Bay & Mayer 2006, "Computational aspects of minimizing conditional
value-at-risk"); the result is the exact optimum, not an approximation.

Losses are positive, returns are fractions of the period (a day). The weights add up to 1. Not covered: transaction
costs and turnover in the optimisation, cardinality, scenario probabilities.
"""

# N = assets, S = scenarios (days), P = portfolios, T = days out of sample, D = bootstrap draws

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from r1core import api
from r1core_var.checks import matrix
from r1core_var.gate import risk_of_losses, tail_weights
from r1core_var.quantiles import tail

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
TOLERANCE = 1e-9  # of the objective, as a fraction of the risk of equal weights
BAND = 0.05  # share of scenarios on each side of the quantile that are variables at first
YEAR = 252  # trading days


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Weights (N,) and what they come to over the scenarios they were made from.

    `expected_shortfall` : a loss positive, per period. `expected_return` : per period. `gap` : how far the objective is
    from the optimum at most, by the bound of the dual.
    """

    weights: Array
    expected_shortfall: float
    expected_return: float
    gap: float = 0.0


def equal_weight(returns: ArrayLike, *, level: float = 0.95) -> Portfolio:
    """1/N in each asset; returns (S, N)."""
    table = matrix(returns)
    return _portfolio(np.full(table.shape[1], 1.0 / table.shape[1]), table, level)


def minimum_cvar(
    returns: ArrayLike,
    *,
    level: float = 0.95,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    minimum_return: float | None = None,
) -> Portfolio:
    """The portfolio of least expected shortfall over returns (S, N), fully invested.

    Parameters
    ----------
    level : of confidence. lower, upper : bounds of the weights, a number or (N,); below 0 means short.
    minimum_return : what the mean return must reach, per period: a point of the mean-CVaR frontier.

    Raises
    ------
    api.UserError : for NaN or infinity, bounds or a return that no portfolio meets.
    """
    table = matrix(returns)
    return _solve(_Problem.of(table, level, lower, upper, np.zeros(table.shape[1]), minimum_return))


def mean_cvar(
    returns: ArrayLike,
    *,
    risk_aversion: float,
    level: float = 0.95,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
) -> Portfolio:
    """The portfolio of greatest `mean return - risk_aversion * expected shortfall`; else as `minimum_cvar`.

    Raises
    ------
    api.UserError : as `minimum_cvar`, and for a risk aversion that is not above 0.
    """
    if not np.isfinite(risk_aversion) or risk_aversion <= 0:
        raise api.UserError(
            f"risk aversion {risk_aversion}: expected a number > 0", fix="give 1.0, or use minimum_cvar"
        )
    table = matrix(returns)
    return _solve(_Problem.of(table, level, lower, upper, table.mean(axis=0) / risk_aversion, None))


@dataclass(frozen=True, slots=True)
class _Problem:
    """min ES(returns @ w) - reward @ w over sum(w) = 1, lower <= w <= upper, mean @ w >= least."""

    returns: Array
    level: float
    lower: Array
    upper: Array
    reward: Array
    least: float | None

    @classmethod
    def of(
        cls, returns: Array, level: float, lower: ArrayLike, upper: ArrayLike, reward: Array, least: float | None
    ) -> _Problem:
        count = returns.shape[1]
        try:
            low, high = (np.broadcast_to(np.asarray(b, dtype=np.float64), (count,)).copy() for b in (lower, upper))
        except ValueError as error:
            raise api.UserError(f"bounds do not fit {count} assets ({error})", fix="give a number or (N,)") from error
        if not np.isfinite(low).all() or not np.isfinite(high).all() or (low > high).any():
            raise api.UserError("a lower bound is above its upper one, or is no number", fix="give finite bounds")
        if not low.sum() <= 1.0 <= high.sum():
            raise api.UserError(
                f"the bounds allow weights that add up to {low.sum():g} at least and {high.sum():g} at most, not to 1",
                fix="widen the bounds",
            )
        problem = cls(returns, level, low, high, reward, least)
        if least is not None and not (reachable := problem.greatest_return()) >= least:
            raise api.UserError(
                f"a mean return of {least:g} is asked for, {reachable:g} is the most within the bounds",
                fix="ask for less: it is per period, not per year",
            )
        return problem

    def greatest_return(self) -> float:
        """The greatest mean return within the bounds: the best assets are filled first."""
        mean, weights, left = self.returns.mean(axis=0), self.lower.copy(), 1.0 - self.lower.sum()
        for asset in np.argsort(-mean):
            taken = min(left, self.upper[asset] - self.lower[asset])
            weights[asset], left = weights[asset] + taken, left - taken
        return float(mean @ weights)

    def objective(self, weights: Array) -> tuple[float, Array]:
        """The objective at weights (N,), and the losses (S,)."""
        losses = -(self.returns @ weights)
        risk = risk_of_losses(losses, tail_weights(len(losses), self.level))
        return risk - float(self.reward @ weights), losses

    def feasible(self, weights: Array) -> Array:
        """Weights that a solver gave, brought within bounds and budget to the last digits."""
        found = np.clip(weights, self.lower, self.upper)
        rest = 1.0 - found.sum()
        room = self.upper - found if rest > 0 else found - self.lower
        return found + rest * room / room.sum() if rest and room.sum() > 0 else found


def _solve(problem: _Problem) -> Portfolio:
    """Fix the scenarios far from the quantile, solve, free those that were fixed wrongly, until the bound is met."""
    count = len(problem.returns)
    mass = tail(count, problem.level)[2]
    start = problem.feasible(np.full(problem.returns.shape[1], 1.0 / problem.returns.shape[1]))
    losses = problem.objective(start)[1]
    scale = float(np.abs(losses).mean()) or 1.0
    best, bound, weights = np.inf, -np.inf, start
    inside, free = _classified(losses, int(mass), int(BAND * count) + problem.returns.shape[1])
    while True:
        found, quantile, lower_bound = _relaxed(problem, mass, scale, inside, free)
        bound = max(bound, lower_bound)
        value, losses = problem.objective(found)
        if value < best:
            best, weights = value, found
        if best - bound <= TOLERANCE * scale:
            return _portfolio(weights, problem.returns, problem.level, max(best - bound, 0.0))
        wrong = (inside & (losses < quantile)) | (~inside & ~free & (losses > quantile))
        if not wrong.any():
            wrong = ~free
        if not wrong.any():
            raise api.R1Error(
                f"the linear programme ended {best - bound:.1e} from its bound: the returns may be too small"
            )
        free, inside = free | wrong, inside & ~wrong


def _classified(losses: Array, rank: int, band: int) -> tuple[Mask, Mask]:
    """(S,) surely in the tail; (S,) near the quantile."""
    order = np.argsort(-losses)
    inside, free = np.zeros(len(losses), dtype=bool), np.zeros(len(losses), dtype=bool)
    inside[order[: max(rank - band, 0)]] = True
    free[order[max(rank - band, 0) : rank + band + 1]] = True
    return inside, free


def _relaxed(problem: _Problem, mass: float, scale: float, inside: Mask, free: Mask) -> tuple[Array, float, float]:
    """Weights, quantile and value of the relaxation in which only `free` scenarios may enter or leave the tail.

    Variables of the dual: y (free scenarios, each at most 1 / mass), the price of the budget, that of the least return
    and those of the upper bounds that can bind. Weights are counted from their lower bounds. Returns are divided by
    `scale`, since the solver's tolerances are absolute.
    """
    table, low = problem.returns / scale, problem.lower
    mean, room = table.mean(axis=0), problem.upper - low
    budget = 1.0 - low.sum()
    binding = np.flatnonzero(room < budget)
    offset = -(table @ low)
    count, fixed = int(free.sum()), float(inside.sum()) / mass
    least = [] if problem.least is None else [problem.least / scale - float(mean @ low)]
    prices = np.zeros((len(low), len(binding)))
    prices[binding, np.arange(len(binding))] = -1.0
    columns = [table[free].T, np.ones((len(low), 1)), *([mean[:, None]] if least else []), prices]
    gain = np.concatenate([offset[free], [budget], least, -room[binding]])
    others = len(least) + len(binding)
    done = linprog(
        -gain,
        A_ub=np.hstack(columns),
        b_ub=-table[inside].sum(axis=0) / mass - problem.reward / scale,
        A_eq=np.concatenate([np.ones(count), np.zeros(1 + others)])[None],
        b_eq=[1.0 - fixed],
        bounds=[(0.0, 1.0 / mass)] * count + [(None, None)] + [(0.0, None)] * others,
        method="highs-ds",
    )
    if done.status != 0:
        raise api.R1Error(f"the linear programme of the portfolio was not solved: {done.message}")
    value = -done.fun + float(offset[inside].sum()) / mass
    weights = problem.feasible(low - done.ineqlin.marginals)
    return weights, -float(done.eqlin.marginals[0]) * scale, value * scale - float(problem.reward @ low)


def _portfolio(weights: Array, returns: Array, level: float, gap: float = 0.0) -> Portfolio:
    risk = risk_of_losses(-(returns @ weights), tail_weights(len(returns), level))
    return Portfolio(weights, risk, float(returns.mean(axis=0) @ weights), gap)


Strategy = Callable[[Array], Portfolio]


@dataclass(frozen=True, slots=True)
class WalkForward:
    """Out-of-sample returns (T,) of one strategy, and how much of the portfolio was traded at a refit on average."""

    returns: Array
    turnover: float


def walk_forward(
    returns: ArrayLike, strategies: Mapping[str, Strategy], *, window: int = 1_000, every: int = 21, cost: float = 0.0
) -> dict[str, WalkForward]:
    """Fit each strategy on the last `window` days, hold its weights for `every` days, move on; no day is seen before.

    Weights are restored every day without cost; at a refit, `cost` (a fraction) is paid on the sum of the changes of
    the target weights. The first purchase counts.

    Raises
    ------
    api.UserError : for NaN or infinity, or a history not longer than the window.
    """
    table = matrix(returns)
    if not 2 <= window < len(table) or every < 1 or not 0.0 <= cost < 1.0:
        raise api.UserError(
            f"{len(table)} days with a window of {window}, refit every {every}, cost {cost}: nothing can be tested",
            fix="give a longer history, a shorter window, refits at least a day apart and a cost in [0, 1)",
        )
    out: dict[str, list[Array]] = {name: [] for name in strategies}
    traded = dict.fromkeys(strategies, 0.0)
    held = {name: np.zeros(table.shape[1]) for name in strategies}
    starts = range(window, len(table), every)
    for at in starts:
        for name, strategy in strategies.items():
            weights = strategy(table[at - window : at]).weights
            change = float(np.abs(weights - held[name]).sum())
            period = table[at : at + every] @ weights
            period[0] -= cost * change
            out[name].append(period)
            traded[name], held[name] = traded[name] + change, weights
    return {name: WalkForward(np.concatenate(out[name]), traded[name] / len(starts)) for name in strategies}


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate and its standard error."""

    value: float
    error: float


FIGURES = ("return per year", "volatility per year", "expected shortfall per day")


def figures(
    tested: Mapping[str, WalkForward], *, level: float = 0.95, block: int = 63, draws: int = 1_000, seed: int = 0,
    against: str | None = None,
) -> dict[str, dict[str, Figure]]:  # fmt: skip
    """`FIGURES` of each strategy with standard errors by the circular block bootstrap (Politis & Romano 1992).

    All strategies are resampled with the same days, so differences between them are paired.

    Parameters
    ----------
    level : of the expected shortfall. block : days, about a quarter, so that clusters of volatility stay together.
    against : a strategy; the figures are then differences from it.
    """
    names = list(tested)
    series = np.stack([tested[name].returns for name in names])
    days, rng = series.shape[1], np.random.default_rng(seed)
    point, spread = _figures(series, level), np.empty((draws, len(names), len(FIGURES)))
    for draw in range(draws):
        starts = rng.integers(days, size=-(-days // block))
        picked = (starts[:, None] + np.arange(block)).ravel()[:days] % days
        spread[draw] = _figures(series[:, picked], level)
    if against is not None:
        base = names.index(against)
        point, spread = point - point[base], spread - spread[:, base : base + 1]
    error = spread.std(axis=0, ddof=1)
    return {
        name: {what: Figure(float(point[i, j]), float(error[i, j])) for j, what in enumerate(FIGURES)}
        for i, name in enumerate(names)
    }


def _figures(series: Array, level: float) -> Array:
    """(P, 3) of returns (P, T)."""
    weights = tail_weights(series.shape[1], level)
    largest = np.sort(np.partition(-series, -len(weights), axis=1)[:, -len(weights) :], axis=1)[:, ::-1]
    return np.stack([series.mean(axis=1) * YEAR, series.std(axis=1, ddof=1) * np.sqrt(YEAR), largest @ weights], axis=1)
