"""Portfolios against the full linear programme of Rockafellar and Uryasev, and the walk-forward against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var.gate import portfolio_risk
from r1core_var.portfolio import (
    FIGURES,
    WalkForward,
    equal_weight,
    figures,
    mean_cvar,
    minimum_cvar,
    walk_forward,
)
from scipy.optimize import linprog

from r1core import api


def reference(
    returns: np.ndarray[Any, Any],
    level: float,
    lower: np.ndarray[Any, Any],
    upper: np.ndarray[Any, Any],
    reward: float = 0.0,
    least: float | None = None,
) -> float:
    """min ES - reward * mean, as the primal programme with one excess variable for each scenario."""
    count, assets = returns.shape
    mean = returns.mean(axis=0)
    cost = np.concatenate([-reward * mean, [1.0], np.full(count, 1 / ((1 - level) * count))])
    rows = [np.hstack([-returns, -np.ones((count, 1)), -np.eye(count)])]
    right = [np.zeros(count)]
    if least is not None:
        rows.append(np.concatenate([-mean, np.zeros(count + 1)])[None])
        right.append(np.array([-least]))
    bounds = [*zip(lower, upper, strict=True), (None, None), *[(0, None)] * count]
    budget = np.concatenate([np.ones(assets), np.zeros(count + 1)])[None]
    done = linprog(cost, np.vstack(rows), np.concatenate(right), budget, [1.0], bounds, method="highs-ipm")
    assert done.status == 0
    return float(done.fun)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_optimum_is_that_of_the_full_linear_programme(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    count, assets = int(rng.integers(5, 160)), int(rng.integers(1, 8))
    returns = rng.standard_t(3, (count, assets)) * 0.01 + 0.002 * rng.random(assets)
    lower = np.full(assets, float(rng.choice([0.0, 0.05, -0.3])))
    upper = np.full(assets, float(rng.choice([1.0, max(0.4, 1.5 / assets)])))
    upper, lower = (upper, lower) if assets > 1 else (np.ones(1), np.zeros(1))
    least = float(np.quantile(returns.mean(axis=0), 0.5)) if rng.random() < 0.5 else None
    try:
        made = minimum_cvar(returns, level=level, lower=lower, upper=upper, minimum_return=least)
    except api.UserError:
        assert least is not None
        return
    best = reference(returns, level, lower, upper, least=least)
    assert made.expected_shortfall == pytest.approx(best, abs=1e-8)
    assert made.gap <= 1e-10
    check(made.weights, lower, upper)
    assert least is None or made.expected_return >= least - 1e-9
    aversion = float(rng.choice([0.1, 1.0, 10.0]))
    utility = mean_cvar(returns, risk_aversion=aversion, level=level, lower=lower, upper=upper)
    best = reference(returns, level, lower, upper, reward=1 / aversion)
    assert utility.expected_shortfall - utility.expected_return / aversion == pytest.approx(best, abs=1e-8)
    check(utility.weights, lower, upper)


def check(weights: np.ndarray[Any, Any], lower: np.ndarray[Any, Any], upper: np.ndarray[Any, Any]) -> None:
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (weights >= lower - 1e-15).all()
    assert (weights <= upper + 1e-15).all()


def test_a_large_one_is_solved_exactly_and_better_than_equal_weight() -> None:
    rng = np.random.default_rng(0)
    returns = 0.01 * (rng.standard_t(4, (3000, 1)) + rng.standard_t(4, (3000, 12)) * np.linspace(0.5, 2, 12))
    made, equal = minimum_cvar(returns), equal_weight(returns)
    assert made.expected_shortfall == pytest.approx(reference(returns, 0.95, np.zeros(12), np.ones(12)), rel=1e-8)
    assert made.expected_shortfall < equal.expected_shortfall
    assert made.expected_shortfall == portfolio_risk(made.weights, returns, level=0.95)
    assert equal.weights == pytest.approx(np.full(12, 1 / 12))


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e5])
def test_the_unit_of_the_returns_does_not_matter(scale: float) -> None:
    returns = np.random.default_rng(4).standard_t(4, (400, 5)) * 0.01
    base, scaled = minimum_cvar(returns), minimum_cvar(returns * scale)
    assert scaled.expected_shortfall / scale == pytest.approx(base.expected_shortfall, rel=1e-8)


def test_more_return_costs_more_risk_along_the_frontier() -> None:
    rng = np.random.default_rng(6)
    returns = rng.normal(size=(500, 6)) * np.linspace(0.005, 0.03, 6) + np.linspace(0.0, 0.004, 6)
    low, high = minimum_cvar(returns).expected_return, returns.mean(axis=0).max()
    risks = [minimum_cvar(returns, minimum_return=r).expected_shortfall for r in np.linspace(low, high, 8)]
    assert risks == sorted(risks)
    best = int(returns.mean(axis=0).argmax())
    assert minimum_cvar(returns, minimum_return=high - 1e-12).weights[best] == pytest.approx(1.0, abs=1e-6)
    assert mean_cvar(returns, risk_aversion=1e-4).weights[best] == pytest.approx(1.0)
    assert mean_cvar(returns, risk_aversion=1e6).expected_shortfall == pytest.approx(risks[0], rel=1e-6)


def test_what_no_portfolio_meets_is_refused() -> None:
    returns = np.random.default_rng(1).normal(size=(50, 3)) * 0.01
    for wrong, told in (
        ({"upper": 0.2}, "add up to 0 at least and 0.6"),
        ({"lower": 0.5}, "add up to 1.5 at least"),
        ({"lower": 0.9, "upper": 0.1}, "above its upper"),
        ({"lower": [0.1, 0.2]}, "do not fit 3 assets"),
        ({"minimum_return": 0.5}, "is the most within the bounds"),
        ({"level": 95}, "confidence level"),
    ):
        with pytest.raises(api.UserError, match=told):
            minimum_cvar(returns, **wrong)  # type: ignore[arg-type]
    with pytest.raises(api.UserError, match="risk aversion"):
        mean_cvar(returns, risk_aversion=0.0)
    returns[3, 1] = np.nan
    with pytest.raises(api.UserError, match="not finite"):
        minimum_cvar(returns)


def test_the_walk_forward_holds_weights_that_were_made_before() -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(size=(95, 3)) * 0.01
    seen: list[int] = []

    def last_winner(past: np.ndarray[Any, Any]) -> Any:
        (at,) = np.flatnonzero((returns == past[-1]).all(axis=1))
        seen.append(int(at))
        weights = np.zeros(3)
        weights[past.sum(axis=0).argmax()] = 1.0
        return type("P", (), {"weights": weights})()

    tested = walk_forward(returns, {"winner": last_winner, "equal": equal_weight}, window=60, every=10, cost=0.001)
    expected, held = [], -1
    for day in range(60, 95):
        if (day - 60) % 10 == 0:
            before, held = held, int(returns[day - 60 : day].sum(axis=0).argmax())
            paid = 0.001 * (1 if before < 0 else 2 * (before != held))
        expected.append(returns[day, held] - (paid if (day - 60) % 10 == 0 else 0.0))
    assert tested["winner"].returns == pytest.approx(expected)
    assert seen == [59, 69, 79, 89]
    assert tested["equal"].turnover == pytest.approx(1 / 4)
    with pytest.raises(api.UserError, match="nothing can be tested"):
        walk_forward(returns, {}, window=95)


def test_standard_errors_are_those_of_independent_days_where_days_are_independent() -> None:
    rng = np.random.default_rng(3)
    days = rng.normal(0.0004, 0.01, size=4000)
    twice = {"a": WalkForward(days, 0.0), "b": WalkForward(days * 2, 0.0)}
    found = figures(twice, block=5, draws=600)
    assert found["a"][FIGURES[0]].value == pytest.approx(days.mean() * 252)
    assert found["a"][FIGURES[0]].error == pytest.approx(0.01 / np.sqrt(4000) * 252, rel=0.1)
    assert found["a"][FIGURES[1]].error == pytest.approx(0.01 * np.sqrt(252) / np.sqrt(2 * 4000), rel=0.12)
    worst = np.sort(-days)[::-1][:200]
    assert found["a"][FIGURES[2]].value == pytest.approx(worst.mean())
    apart = figures(twice, block=5, draws=600, against="a")
    assert apart["b"][FIGURES[0]].value == pytest.approx(days.mean() * 252)
    assert apart["b"][FIGURES[0]].error == pytest.approx(found["a"][FIGURES[0]].error, rel=1e-9)
    assert apart["a"][FIGURES[1]].error == 0.0
