"""Contributions of positions: Euler sums, derivatives by finite differences, portfolios without a position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var import decomposition, quantiles
from scipy import stats

from r1core.api import UserError

MEASURES = ("value_at_risk", "expected_shortfall")


def portfolio(seed: int, assets: int = 5, days: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(assets, assets))
    return rng.normal(size=assets), rng.standard_t(4, (days, assets)) @ mix / 100


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(MEASURES), st.sampled_from([0.95, 0.975, 0.99]))
def test_components_sum_to_the_total(seed: int, measure: decomposition.Measure, level: float) -> None:
    w, returns = portfolio(seed)
    mean, covariance = returns.mean(axis=0), np.cov(returns.T)
    for found in (
        decomposition.parametric(w, mean, covariance, level, measure),
        decomposition.parametric(w, mean, covariance, level, measure, degrees=5),
        decomposition.historical(w, returns, level, measure),
        decomposition.historical(w, returns, level, measure, neighbours=3),
    ):
        assert abs(found.component.sum() - found.total) <= 1e-12
        np.testing.assert_allclose(found.component, w * found.marginal, rtol=0, atol=1e-15)


@pytest.mark.parametrize("measure", MEASURES)
def test_marginals_are_derivatives(measure: decomposition.Measure) -> None:
    w, returns = portfolio(1)
    mean, covariance = returns.mean(axis=0), np.cov(returns.T)
    for call in (
        lambda x: decomposition.parametric(x, mean, covariance, 0.975, measure),
        lambda x: decomposition.historical(x, returns, 0.975, measure),
    ):
        found = call(w)
        for i in range(len(w)):
            step = np.zeros_like(w)
            step[i] = 1e-7
            slope = (call(w + step).total - call(w - step).total) / 2e-7
            assert found.marginal[i] == pytest.approx(slope, abs=1e-7)


def test_totals_are_those_of_the_portfolio_and_increments_leave_a_position_out() -> None:
    w, returns = portfolio(2)
    losses = -(returns @ w)
    var = decomposition.historical(w, returns, 0.99)
    es = decomposition.historical(w, returns, 0.975, "expected_shortfall")
    assert var.total == pytest.approx(quantiles.value_at_risk(losses, 0.99), abs=1e-14)
    assert es.total == pytest.approx(quantiles.expected_shortfall(losses, 0.975), abs=1e-14)
    without = w.copy()
    without[3] = 0
    rest = quantiles.expected_shortfall(-(returns @ without), 0.975)
    assert es.incremental[3] == pytest.approx(es.total - rest, abs=1e-14)
    mean, covariance = returns.mean(axis=0), np.cov(returns.T)
    normal = decomposition.parametric(w, mean, covariance, 0.99)
    deviation = float(np.sqrt(w @ covariance @ w))
    assert normal.total == pytest.approx(stats.norm.ppf(0.99) * deviation - w @ mean, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w, r: decomposition.historical(w[:-1], r, 0.99), "weights of shape"),
        (lambda w, r: decomposition.historical(w, r[:50], 0.99), "hold none beyond"),
        (lambda w, r: decomposition.historical(w, np.where(r == r[7, 2], np.nan, r), 0.99), "day 7, asset 2"),
        (lambda w, r: decomposition.historical(w, r, 0.99, neighbours=9), "neighbours"),
        (lambda w, r: decomposition.parametric(w, w, np.eye(2), 0.99), "shapes"),
        (lambda w, r: decomposition.parametric(w, w, -np.eye(5), 0.99), "variance is"),
        (lambda w, r: decomposition.parametric(w, w * np.nan, np.eye(5), 0.99), "not finite"),
    ],
)
def test_bad_portfolios_are_told_in_one_line(call, says: str) -> None:
    with pytest.raises(UserError, match=says):
        call(*portfolio(3))
