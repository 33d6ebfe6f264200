"""Value-at-risk and expected shortfall of one sample, against SciPy, NumPy, arch and brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var import evt, historical, parametric, quantiles
from r1core_var.distributions import Normal, SkewedT
from r1core_var.simulation import monte_carlo
from scipy import integrate, stats

from r1core.api import UserError

METHODS = ("inverted_cdf", "averaged_inverted_cdf", "hazen", "weibull", "linear", "median_unbiased", "normal_unbiased")
LEVELS = st.sampled_from([0.95, 0.975, 0.99])
SAMPLES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=100, max_size=400).map(np.array)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [100, 250, 999, 1003])
def test_each_quantile_convention_is_numpys_of_that_name(method: quantiles.QuantileMethod, count: int) -> None:
    losses = np.random.default_rng(count).normal(size=count)
    for level in (0.95, 0.975, 0.99):
        assert quantiles.value_at_risk(losses, level, method) == pytest.approx(
            np.quantile(losses, level, method=method), abs=1e-12
        )


def test_a_level_counts_as_the_decimal_that_is_written() -> None:
    losses = np.arange(1, 1001) / 1000
    assert quantiles.value_at_risk(losses, 0.99) == 0.990  # rank 990 of 1,000, whatever 1000 * 0.99 rounds to
    assert quantiles.value_at_risk(losses[:100], 0.99) == 0.099
    assert quantiles.expected_shortfall(losses, 0.99) == pytest.approx(np.mean(losses[-10:]), abs=1e-15)


@settings(max_examples=30)
@given(SAMPLES, LEVELS)
def test_expected_shortfall_is_the_integral_of_the_quantile_function(losses: np.ndarray, level: float) -> None:
    # brute force in exact fractions: each loss has mass 1/n, the worst 1 - level of the mass is averaged
    left, total = (1 - Fraction(repr(level))) * len(losses), Fraction(0)
    mass = left
    for loss in sorted(losses, reverse=True):
        share = min(left, Fraction(1))
        total += share * Fraction(float(loss))
        left -= share
    assert quantiles.expected_shortfall(losses, level) == pytest.approx(float(total / mass), abs=1e-12)


@settings(max_examples=30)
@given(SAMPLES, LEVELS, st.floats(0.1, 10), st.floats(-2, 2))
def test_both_measures_scale_with_the_position_and_move_with_cash(
    losses: np.ndarray, level: float, factor: float, cash: float
) -> None:
    for measure in (quantiles.value_at_risk, quantiles.expected_shortfall):
        assert measure(losses * factor + cash, level) == pytest.approx(factor * measure(losses, level) + cash, abs=1e-9)


@settings(max_examples=30)
@given(SAMPLES, st.integers(0, 2**32 - 1), LEVELS)
def test_expected_shortfall_is_subadditive(losses: np.ndarray, seed: int, level: float) -> None:
    other = np.random.default_rng(seed).standard_t(3, len(losses)) / 10
    shortfall = quantiles.expected_shortfall
    assert shortfall(losses + other, level) <= shortfall(losses, level) + shortfall(other, level) + 1e-9


def test_ten_days_by_the_root_of_time_and_by_overlapping_windows(drawn: np.ndarray) -> None:
    one = historical.historical(drawn, 0.99)
    assert historical.historical(drawn, 0.99, horizon=10).value_at_risk == pytest.approx(
        one.value_at_risk * 10**0.5, rel=1e-14
    )
    runs = [np.prod(1 + drawn[at : at + 10]) - 1 for at in range(len(drawn) - 9)]
    found = historical.historical(drawn, 0.99, horizon=10, scaling="overlapping")
    assert found.value_at_risk == pytest.approx(np.quantile([-r for r in runs], 0.99, method="inverted_cdf"), abs=1e-12)
    logs = historical.historical(drawn, 0.99, horizon=10, scaling="overlapping", kind="log")
    sums = [-drawn[at : at + 10].sum() for at in range(len(drawn) - 9)]
    assert logs.value_at_risk == pytest.approx(np.quantile(sums, 0.99, method="inverted_cdf"), abs=1e-12)


def test_normal_figures_are_scipys() -> None:
    risk = parametric.normal_risk(0.001, 0.02, 0.975, horizon=10)
    loss = stats.norm(loc=-0.01, scale=0.02 * 10**0.5)
    assert risk.value_at_risk == pytest.approx(loss.ppf(0.975), abs=1e-12)
    tail = loss.expect(lambda x: x, lb=loss.ppf(0.975), conditional=True)
    assert risk.expected_shortfall == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize(("eta", "lam"), [(2.6, -0.4), (5.0, 0.0), (9.0, 0.3)])
@pytest.mark.parametrize("p", [0.01, 0.025, 0.5, 0.8])
def test_the_skewed_t_has_its_own_quantiles_and_tail_means(eta: float, lam: float, p: float) -> None:
    one = SkewedT(eta, lam)
    edge = float(one.quantile(p))

    def density(z: float) -> float:
        return float(np.exp(one.logpdf(np.array([z]))[0]))

    mode = sorted([-50.0, edge])
    below = integrate.quad(density, -np.inf, edge, limit=500)[0]
    assert below == pytest.approx(p, abs=1e-7)
    mean = integrate.quad(lambda z: z * density(z), -np.inf, mode[0], limit=500)[0]
    mean += integrate.quad(lambda z: z * density(z), mode[0], edge, limit=500, points=[-1.0, 0.0])[0]
    assert one.mean_below(p) == pytest.approx(mean / p, abs=1e-6)


def test_the_skewed_t_is_archs() -> None:
    arch = pytest.importorskip("arch.univariate", reason="arch is not installed")
    theirs, z = arch.SkewStudent(), np.linspace(-6, 6, 41)
    for eta, lam in ((2.6, -0.4), (5.0, 0.0), (9.0, 0.3)):
        ours = SkewedT(eta, lam)
        individual = theirs.loglikelihood([eta, lam], z, np.ones_like(z), individual=True)
        np.testing.assert_allclose(ours.logpdf(z), individual, rtol=0, atol=1e-12)
        for p in (0.01, 0.3, 0.7):
            edge = theirs.ppf(p, [eta, lam])
            assert float(ours.quantile(p)) == pytest.approx(edge, abs=1e-10)
            assert ours.mean_below(p) == pytest.approx(theirs.partial_moment(1, edge, [eta, lam]) / p, abs=1e-9)
    assert Normal().mean_below(0.025) == pytest.approx(arch.Normal().partial_moment(1, stats.norm.ppf(0.025)) / 0.025)


def test_a_student_t_is_fitted_as_scipy_fits_it(sp500: np.ndarray) -> None:
    mean, deviation, degrees = parametric.fit_student_t(sp500)
    nu, loc, scale = stats.t.fit(sp500)
    theirs = stats.t.logpdf(sp500, nu, loc, scale).sum()
    ours = stats.t.logpdf(sp500, degrees, mean, deviation * np.sqrt((degrees - 2) / degrees)).sum()
    assert ours >= theirs - 1e-9
    assert (mean, degrees) == pytest.approx((loc, nu), rel=1e-4)
    risk = parametric.student_t(sp500, 0.99)
    assert risk.value_at_risk == pytest.approx(-stats.t.ppf(0.01, nu, loc, scale), rel=1e-4)
    tail = -stats.t.expect(lambda x: x, (nu,), loc, scale, ub=stats.t.ppf(0.01, nu, loc, scale), conditional=True)
    assert risk.expected_shortfall == pytest.approx(tail, rel=1e-4)


def test_a_pareto_tail_is_fitted_as_scipy_fits_it(sp500: np.ndarray) -> None:
    tail = evt.fit_tail(-sp500)
    excesses = -sp500[-sp500 > tail.threshold] - tail.threshold
    xi, _, scale = stats.genpareto.fit(excesses, floc=0)
    assert (tail.xi, tail.scale) == pytest.approx((xi, scale), rel=1e-3)
    assert tail.loglikelihood == pytest.approx(stats.genpareto.logpdf(excesses, tail.xi, 0, tail.scale).sum(), abs=1e-9)
    assert tail.loglikelihood >= stats.genpareto.logpdf(excesses, xi, 0, scale).sum() - 1e-9
    # the quantile of the loss at which the fitted tail leaves 1 - level, and the mean beyond it
    beyond = stats.genpareto(tail.xi, tail.threshold, tail.scale)
    share = 1 - 0.01 * tail.count / tail.peaks
    assert tail.value_at_risk(0.99) == pytest.approx(beyond.ppf(share), abs=1e-9)
    mean = beyond.expect(lambda x: x, lb=beyond.ppf(share), conditional=True)
    assert tail.expected_shortfall(0.99) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_the_pareto_likelihood_has_no_better_neighbour(shape: float) -> None:
    x = stats.genpareto.rvs(shape, scale=2.0, size=400, random_state=np.random.default_rng(1))
    xi, scale, loglik = evt.fit_pareto(x)
    for a in (-1e-3, 0, 1e-3):
        for b in (-1e-3, 0, 1e-3):
            assert stats.genpareto.logpdf(x, xi + a, 0, scale + b).sum() <= loglik + 1e-9


def test_monte_carlo_comes_near_the_closed_form_and_repeats_itself() -> None:
    covariance, weights = [[4e-4, 1e-4], [1e-4, 1e-4]], [0.5, 0.5]
    risk = monte_carlo([0, 0], covariance, weights, 0.99, paths=200_000)
    deviation = float(np.sqrt(np.array(weights) @ covariance @ weights))
    assert risk.value_at_risk == pytest.approx(stats.norm.ppf(0.99) * deviation, rel=0.02)
    assert risk == monte_carlo([0, 0], covariance, weights, 0.99, paths=200_000)
    heavy = monte_carlo([0, 0], covariance, weights, 0.99, degrees=4, paths=200_000)
    assert heavy.value_at_risk == pytest.approx(-stats.t.ppf(0.01, 4) * deviation * 0.5**0.5, rel=0.02)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: historical.historical([0.01, np.nan, 0.02], 0.99), "position 1"),
        (lambda: historical.historical([0.01, np.inf], 0.99), "not finite"),
        (lambda: historical.historical(np.zeros(99), 0.99), "hold none beyond"),
        (lambda: historical.historical(np.ones(200), 0.01), "confidence level 0.01"),
        (lambda: historical.historical(np.ones(200), 99), "confidence level 99"),
        (lambda: historical.historical(np.ones((20, 2)), 0.99), "shape"),
        (lambda: historical.historical(["a"] * 9, 0.99), "no numbers"),
        (lambda: historical.historical(np.full(200, -2.0), 0.99, horizon=2, scaling="overlapping"), "lose everything"),
        (lambda: parametric.normal_risk(0, -1, 0.99), "deviation"),
        (lambda: parametric.normal_risk(0, 1, 0.99, horizon=0), "horizon"),
        (lambda: parametric.fit_student_t(np.ones(50)), "all are equal"),
        (lambda: evt.fit_tail(np.arange(100.0)), "above the threshold"),
        (lambda: monte_carlo([0], [[-1]], [1], 0.99), "semidefinite"),
        (lambda: monte_carlo([0], [[1]], [1], 0.99, degrees=2), "no variance"),
    ],
)
def test_bad_input_is_told_in_one_line(call, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_dropping_is_explicit() -> None:
    clean = np.random.default_rng(3).normal(size=300)
    holed = np.insert(clean, [5, 200], np.nan)
    assert historical.historical(holed, 0.99, nan_policy="drop") == historical.historical(clean, 0.99)


def test_a_pandas_series_is_accepted() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    values = np.random.default_rng(4).normal(size=300)
    assert historical.historical(pandas.Series(values), 0.975) == historical.historical(values, 0.975)
