"""The backtests against published tables, brute force and SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1core_var.backtests.coverage import christoffersen_conditional, christoffersen_independence, kupiec
from r1core_var.backtests.dynamic_quantile import dynamic_quantile
from r1core_var.backtests.scores import fz0, pinball
from r1core_var.backtests.shortfall import acerbi_szekely, excess_residuals, z1_statistic, z2_statistic
from r1core_var.backtests.suite import backtest
from r1core_var.backtests.traffic_light import traffic_light
from r1core_var.values import Forecasts
from scipy import optimize, stats

from r1core.api import UserError


def hits(ones: int, days: int) -> np.ndarray:
    return (np.arange(days) < ones).astype(int)


# Kupiec (1995), table of non-rejection regions at 5 %: p, days, fewest and most exceedances that are not rejected
@pytest.mark.parametrize(
    ("level", "days", "low", "high"),
    [(0.99, 510, 2, 10), (0.99, 1000, 5, 16), (0.95, 255, 7, 20), (0.95, 510, 17, 35), (0.95, 1000, 38, 64)],
)
def test_kupiec_has_the_published_regions(level: float, days: int, low: int, high: int) -> None:
    kept = [n for n in range(days // 5) if not kupiec(hits(n, days), level).rejected(0.05)]
    assert (kept[0], kept[-1]) == (low, high)


@given(st.integers(1, 60), st.sampled_from([0.95, 0.99]))
def test_kupiec_is_twice_the_gap_of_the_binomial_log_likelihoods(ones: int, level: float) -> None:
    days = 600
    ratio = 2 * (stats.binom.logpmf(ones, days, ones / days) - stats.binom.logpmf(ones, days, 1 - level))
    found = kupiec(hits(ones, days), level)
    assert found.statistic == pytest.approx(ratio, abs=1e-9)
    near_zero = 1e-6  # there p moves with the square root of the ratio, whose rounding is 1e-14
    tolerance = 1e-9 if ratio > near_zero else 1e-6
    assert found.p_value == pytest.approx(stats.chi2.sf(max(ratio, 0), 1), abs=tolerance)


@given(st.lists(st.booleans(), min_size=30, max_size=200))
def test_independence_is_the_likelihood_ratio_of_a_markov_chain(found: list[bool]) -> None:
    transitions = list(itertools.pairwise(found))

    def loglik(share) -> float:  # brute force over each day
        return sum(np.log(share[before] if after else 1 - share[before]) for before, after in transitions)

    count = {s: sum(b == s for b, _ in transitions) for s in (False, True)}
    verdict = christoffersen_independence(np.array(found))
    if not any(found) or 0 in count.values():
        assert np.isnan(verdict.p_value)
        assert verdict.note
        return
    tiny = 1e-300
    each = {s: sum(a for b, a in transitions if b == s) / count[s] for s in count}
    each = {s: min(max(p, tiny), 1 - 1e-16) for s, p in each.items()}
    pooled = min(max(sum(a for _, a in transitions) / len(transitions), tiny), 1 - 1e-16)
    ratio = 2 * (loglik(each) - loglik({False: pooled, True: pooled}))
    assert verdict.statistic == pytest.approx(max(ratio, 0), abs=1e-9)


def test_clustered_exceedances_are_found_and_scattered_ones_are_not() -> None:
    clustered, scattered = np.zeros(1000, int), np.zeros(1000, int)
    clustered[500:510] = 1
    scattered[50::100] = 1
    assert christoffersen_independence(clustered).rejected()
    assert not christoffersen_independence(scattered).rejected()
    assert kupiec(clustered, 0.99).p_value == pytest.approx(1.0)
    both = christoffersen_conditional(clustered, 0.99)
    assert both.statistic == pytest.approx(christoffersen_independence(clustered).statistic, abs=1e-9)
    assert both.p_value == pytest.approx(stats.chi2.sf(both.statistic, 2), abs=1e-12)


def test_without_an_exceedance_nothing_is_claimed() -> None:
    none = np.zeros(300, int)
    assert kupiec(none, 0.99).statistic == pytest.approx(-2 * 300 * np.log(0.99), abs=1e-9)
    for verdict in (christoffersen_independence(none), christoffersen_conditional(none, 0.99)):
        assert verdict.rejected() is None
    assert dynamic_quantile(none, np.linspace(1, 2, 300), 0.99).rejected() is None


def test_dynamic_quantile_is_the_regression_of_hits_written_out() -> None:
    rng = np.random.default_rng(7)
    var, found = rng.uniform(1, 3, 800), rng.random(800) < 0.05
    hit = found - 0.05
    rows = [[1, *(hit[t - k] for k in (1, 2, 3, 4)), var[t]] for t in range(4, 800)]
    x, y = np.array(rows), hit[4:]
    statistic = y @ x @ np.linalg.inv(x.T @ x) @ x.T @ y / (0.05 * 0.95)
    verdict = dynamic_quantile(found, var, 0.95)
    assert verdict.statistic == pytest.approx(statistic, rel=1e-9)
    assert verdict.p_value == pytest.approx(stats.chi2.sf(statistic, 6), abs=1e-9)


def test_dynamic_quantile_rejects_a_right_model_about_as_often_as_it_says() -> None:
    rng, rejected = np.random.default_rng(8), 0
    for _ in range(400):
        rejected += bool(dynamic_quantile(rng.random(1000) < 0.05, rng.uniform(1, 2, 1000), 0.95).rejected(0.05))
    assert 0.02 < rejected / 400 < 0.10


def test_the_traffic_light_is_the_published_table() -> None:
    # Basel Committee (1996), table 2: cumulative probabilities in percent, zones and increases for 250 days at 99 %
    cumulative = [8.11, 28.58, 54.32, 75.81, 89.22, 95.88, 98.63, 99.60, 99.89, 99.97, 99.99]
    plus = [0, 0, 0, 0, 0, 0.40, 0.50, 0.65, 0.75, 0.85, 1.00]
    mar32 = [1.5, 1.5, 1.5, 1.5, 1.5, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00]
    for count in range(11):
        light = traffic_light(count)
        assert 100 * light.cumulative == pytest.approx(cumulative[count], abs=0.006)
        assert light.zone == ("green" if count < 5 else "yellow" if count < 10 else "red")
        assert light.multiplier_1996 == pytest.approx(3 + plus[count])
        assert light.multiplier_mar32 == mar32[count]
    assert traffic_light(11).multiplier_1996 == 4.0
    assert traffic_light(5, days=500).multiplier_1996 is None


def normal_tail(level: float, days: int) -> tuple[np.ndarray, np.ndarray]:
    edge = stats.norm.ppf(level)
    return np.full(days, edge), np.full(days, stats.norm.pdf(edge) / (1 - level))


def test_acerbi_szekely_statistics_by_hand() -> None:
    losses, var, es = np.array([1.0, 5.0, 0.5, 3.0]), np.array([2.0, 2.0, 1.0, 2.0]), np.array([4.0, 4.0, 2.0, 2.5])
    assert z1_statistic(losses, var, es) == pytest.approx(1 - (5 / 4 + 3 / 2.5) / 2, abs=1e-15)
    assert z2_statistic(losses, var, es, 0.9) == pytest.approx(1 - (5 / 4 + 3 / 2.5) / (4 * 0.1), abs=1e-12)


def test_the_critical_values_that_acerbi_and_szekely_publish() -> None:
    # 250 days at 97.5 %: Z2 = -0.70 is at 5 % and -1.8 at 0.01 %, for tails from the normal to a t of 5 degrees
    var, es = normal_tail(0.975, 250)
    for target, low, high in ((-0.70, 0.03, 0.07), (-1.8, 0.0, 0.002)):
        losses = np.zeros(250)
        losses[:10] = (1 - target) * 250 * 0.025 * es[0] / 10
        assert z2_statistic(losses, var, es, 0.975) == pytest.approx(target, abs=1e-9)
        for xi in (0.0, 0.2):
            assert low <= acerbi_szekely(losses, var, es, 0.975, xi=xi)[1].p_value <= high


def test_understated_shortfalls_are_found_and_right_ones_are_not() -> None:
    var, es = normal_tail(0.975, 4000)
    losses = np.random.default_rng(10).normal(size=4000)
    for verdict in (*acerbi_szekely(losses, var, es, 0.975), excess_residuals(losses, var, es)):
        assert verdict.rejected() is False
    for verdict in (*acerbi_szekely(losses * 1.3, var, es, 0.975), excess_residuals(losses * 1.3, var, es)):
        assert verdict.rejected() is True
    assert acerbi_szekely(losses, var, es, 0.975) == acerbi_szekely(losses, var, es, 0.975)


def test_excess_residuals_are_scipys_t_test() -> None:
    var, es = normal_tail(0.95, 500)
    losses = np.random.default_rng(11).standard_t(4, 500)
    beyond = losses > var
    theirs = stats.ttest_1samp((losses / es - 1)[beyond], 0, alternative="greater")
    assert excess_residuals(losses, var, es).p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_pinball_is_least_at_the_quantile_and_fz0_at_both() -> None:
    losses = np.random.default_rng(12).normal(size=2001)
    best = optimize.minimize_scalar(lambda v: pinball(losses, np.full(2001, v), 0.95), bounds=(0, 4), method="bounded")
    edge = np.quantile(losses, 0.95, method="inverted_cdf")
    assert pinball(losses, np.full(2001, edge), 0.95) <= best.fun + 1e-9
    by_hand = np.mean([0.95 * (x - 1) if x > 1 else 0.05 * (1 - x) for x in losses])
    assert pinball(losses, np.ones(2001), 0.95) == pytest.approx(by_hand, abs=1e-12)
    tail = losses[losses > edge].mean()

    def score(v: float, e: float) -> float:
        return fz0(losses, np.full(2001, v), np.full(2001, e), 0.95)

    assert all(score(edge, tail) < score(edge + a, tail + b) for a, b in ((0.3, 0), (-0.3, 0), (0, 0.4), (0, -0.4)))


def test_a_loss_equal_to_the_forecast_is_no_exceedance() -> None:
    f = Forecasts("x", 0.9, 100, 100, np.array([1.0, 1.1]), np.ones(2), np.full(2, 1.5))
    assert f.exceedances.tolist() == [False, True]


def test_days_without_a_forecast_loss_are_no_measure_of_the_worst() -> None:
    losses = np.array([0.0, 1.0, 0.5, 3.0] * 10)
    quiet, es = np.array([0.0, -1.0, 0.5, 2.0] * 10), np.full(40, 4.0)
    assert backtest(Forecasts("x", 0.9, 100, 100, losses, quiet, es)).worst == pytest.approx(1.5)
    assert np.isnan(backtest(Forecasts("x", 0.9, 100, 100, losses, np.zeros(40), es)).worst)
    with pytest.raises(UserError, match="10 days are forecast, expected at least 11"):
        backtest(Forecasts("x", 0.9, 100, 100, losses[:10], quiet[:10], es[:10]))


def test_the_suite_counts_and_names_what_rejects() -> None:
    rng = np.random.default_rng(13)
    var, es = normal_tail(0.99, 1000)
    found = backtest(Forecasts("x", 0.99, 100, 100, 1.6 * rng.normal(size=1000), var, es))
    assert found.days == 1000
    assert found.expected == pytest.approx(10)
    assert found.light.days == 250
    assert {"Kupiec coverage", "Acerbi-Szekely Z2"} <= set(found.rejections())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kupiec([0, 1, 2], 0.99), "expected 0 or 1"),
        (lambda: kupiec([0.0, np.nan, 1.0], 0.99), "expected 0 or 1"),
        (lambda: kupiec([0, 1], 0.05), "confidence level"),
        (lambda: dynamic_quantile([0, 1] * 20, np.ones(39), 0.99), "40 exceedances and 39 forecasts"),
        (lambda: dynamic_quantile([0, 1] * 20, np.full(40, np.nan), 0.99), "not finite"),
        (lambda: acerbi_szekely([1, 2], [1, 1], [-1, 2], 0.99), "below the value-at-risk"),
        (lambda: acerbi_szekely([1, np.nan], [1, 1], [2, 2], 0.99), "position 1"),
        (lambda: pinball([1, 2], [1], 0.99), "2 losses and 1 forecasts"),
        (lambda: traffic_light(300), "300 exceedances"),
    ],
)
def test_bad_forecasts_are_told_in_one_line(call, says: str) -> None:
    with pytest.raises(UserError, match=says):
        call()
