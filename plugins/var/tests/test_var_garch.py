"""GARCH fits against arch, and the batched refit of windows against single fits."""

from __future__ import annotations

import numpy as np
import pytest
from r1core_var import garch
from r1core_var.filtered_windows import garch_tail, window_residuals
from r1core_var.garch_windows import fit_windows
from r1core_var.simulation import garch_paths
from r1core_var.volatility import ewma_variance, garch_variance

from r1core.api import UserError


def by_hand(e: np.ndarray, omega: float, alpha: float, gamma: float, beta: float, before: float) -> list[float]:
    h = [omega + (alpha + gamma / 2 + beta) * before]
    for one in e:
        h.append(omega + (alpha + gamma * (one < 0)) * one**2 + beta * h[-1])
    return h


def test_recursions_are_the_loops_that_they_replace(drawn: np.ndarray) -> None:
    found = garch_variance(drawn, 2e-6, 0.05, 0.1, 0.85, 1e-4)
    np.testing.assert_allclose(found, by_hand(drawn, 2e-6, 0.05, 0.1, 0.85, 1e-4), rtol=1e-12)
    h = [2e-4]
    for one in drawn:
        h.append(0.94 * h[-1] + 0.06 * one**2)
    np.testing.assert_allclose(ewma_variance(drawn, first=2e-4), h, rtol=1e-12)


def test_ewma_is_archs(sp500: np.ndarray) -> None:
    univariate = pytest.importorskip("arch.univariate", reason="arch is not installed")
    model = univariate.EWMAVariance(0.94)
    days = sp500[:500]
    path = np.empty(500)
    model.compute_variance(np.array([]), days, path, model.backcast(days), model.variance_bounds(days))
    np.testing.assert_allclose(ewma_variance(days)[:-1], path, rtol=1e-9)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("distribution", ["normal", "t", "skewt"])
def test_single_fits_are_archs(sp500: np.ndarray, asymmetric: bool, distribution: garch.DistributionName) -> None:
    arch = pytest.importorskip("arch", reason="arch is not installed")
    ours = garch.fit(sp500, asymmetric=asymmetric, distribution=distribution)
    model = arch.arch_model(sp500, p=1, o=int(asymmetric), q=1, dist=distribution, rescale=False)
    theirs = model.fit(disp="off", tol=1e-10, show_warning=False)
    assert ours.loglikelihood >= theirs.loglikelihood - 1e-6
    gamma = [ours.gamma] if asymmetric else []
    parameters = [ours.mu, ours.omega, ours.alpha, *gamma, ours.beta, *ours.shape]
    np.testing.assert_allclose(parameters, np.asarray(theirs.params), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(ours.variance[:-1]), theirs.conditional_volatility, rtol=1e-4)
    following = theirs.forecast(horizon=10, reindex=False).variance.values[-1]
    np.testing.assert_allclose(ours.variance_forecasts(10), following, rtol=1e-4)
    shape = np.asarray(theirs.params)[len(parameters) - len(ours.shape) :]
    edge = model.distribution.ppf(0.01, shape if len(shape) else None)
    mu, sigma = float(np.asarray(theirs.params)[0]), float(np.sqrt(following[0]))
    assert ours.one_day(0.99)[0] == pytest.approx(-(mu + sigma * edge), rel=1e-4)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_window_is_fitted_as_well_as_arch_does(sp500: np.ndarray, asymmetric: bool) -> None:
    arch = pytest.importorskip("arch", reason="arch is not installed")
    series = sp500[:1900]
    fits = fit_windows(series, 1000, asymmetric=asymmetric)
    assert fits.converged.all()
    for n in range(0, 901, 75):
        model = arch.arch_model(series[n : n + 1000], p=1, o=int(asymmetric), q=1, rescale=False)
        theirs = model.fit(disp="off", show_warning=False)
        assert fits.loglikelihood[n] >= theirs.loglikelihood - 1e-3
        forecast = theirs.forecast(horizon=1, reindex=False).variance.values[-1, 0]
        better = fits.loglikelihood[n] > theirs.loglikelihood + 1e-6
        assert better or np.sqrt(fits.next_variance[n] / forecast) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_windows_do_not_depend_on_their_block_nor_on_the_unit(drawn: np.ndarray, asymmetric: bool) -> None:
    drawn = drawn[:430]
    whole = fit_windows(drawn, 400, asymmetric=asymmetric)
    parts = fit_windows(drawn, 400, asymmetric=asymmetric, block=17)
    np.testing.assert_allclose(parts.next_variance, whole.next_variance, rtol=1e-6)
    percent = fit_windows(100 * drawn, 400, asymmetric=asymmetric)
    np.testing.assert_allclose(percent.next_variance / 1e4, whole.next_variance, rtol=1e-3)
    np.testing.assert_allclose(percent.loglikelihood + 400 * np.log(100), whole.loglikelihood, atol=1e-3)


def test_windows_agree_with_single_fits(drawn: np.ndarray) -> None:
    fits = fit_windows(drawn, 600, asymmetric=True)
    for n in (0, 50, 100):
        one = garch.fit(drawn[n : n + 600], asymmetric=True)
        assert fits.loglikelihood[n] == pytest.approx(one.loglikelihood, abs=1e-3)
        assert fits.next_variance[n] == pytest.approx(one.variance[-1], rel=0.01)
        residuals = window_residuals(drawn, fits, n, n + 1)[0]
        np.testing.assert_allclose(residuals, one.residuals, rtol=0.02, atol=0.01)
    var, es = garch_tail(drawn, 600, 0.95, asymmetric=True)
    losses = -window_residuals(drawn, fits, 0, len(fits.mu))
    edge = np.quantile(losses, 0.95, axis=1, method="inverted_cdf")
    np.testing.assert_allclose(var, np.sqrt(fits.next_variance) * edge - fits.mu, rtol=1e-12)
    tail = np.sort(losses, axis=1)[:, -30:].mean(axis=1)
    np.testing.assert_allclose(es, np.sqrt(fits.next_variance) * tail - fits.mu, rtol=1e-10)


def test_simulated_paths_have_the_variance_that_the_fit_forecasts() -> None:
    draws = np.random.default_rng(1).standard_normal((200_000, 5))
    paths = garch_paths(draws, mu=0.0, omega=0.05, alpha=0.1, gamma=0.0, beta=0.8, variance=2.0)
    expected = [2.0]
    for _ in range(4):
        expected.append(0.05 + 0.9 * expected[-1])
    np.testing.assert_allclose(paths.var(axis=0), expected, rtol=0.02)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(UserError, match="all are equal"):
        garch.fit(np.ones(200))
    with pytest.raises(UserError, match="expected at least 100"):
        garch.fit(np.random.default_rng(0).normal(size=99))
    with pytest.raises(UserError, match="position 3"):
        garch.fit(np.where(np.arange(200) == 3, np.nan, 0.01))
    with pytest.raises(ValueError, match="do not hold a window"):
        fit_windows(np.ones(50), 100)
    with pytest.raises(ValueError, match="no variation"):
        fit_windows(np.ones(150), 100)
