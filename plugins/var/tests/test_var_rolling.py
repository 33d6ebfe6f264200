"""Rolling forecasts: exact against a loop, blind to the future, every model usable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var import quantiles
from r1core_var.models import SIMULATABLE, estimate
from r1core_var.rolling import DEFAULT, ROLLERS, SUMMARIES, forecast
from r1core_var.sliding import rolling_tail

from r1core.api import UserError


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(20, 130),
    st.integers(0, 120),
    st.sampled_from([0.9, 0.95, 0.99, 0.6]),
    st.sampled_from(["inverted_cdf", "linear", "hazen"]),
    st.booleans(),
)
def test_every_window_is_what_sorting_it_gives(
    seed: int, window: int, more: int, level: float, method: quantiles.QuantileMethod, ties: bool
) -> None:
    losses = np.random.default_rng(seed).normal(size=window + more)
    losses = losses.round(1) if ties else losses
    var, es = rolling_tail(losses, window, level, method)
    each = np.lib.stride_tricks.sliding_window_view(losses, window)
    np.testing.assert_allclose(var, np.quantile(each, level, axis=1, method=method), rtol=0, atol=1e-12)
    for row, found in zip(each, es, strict=True):
        assert found == pytest.approx(quantiles.expected_shortfall(row, level), abs=1e-12)


def test_historical_forecasts_are_a_loop_over_windows(sp500: np.ndarray) -> None:
    found = forecast(sp500, model="historical", window=1000)
    loop = [np.quantile(-sp500[t - 1000 : t], 0.99, method="inverted_cdf") for t in range(1000, len(sp500))]
    np.testing.assert_array_equal(found.value_at_risk, loop)
    assert found.first == 1000
    np.testing.assert_array_equal(found.losses, -sp500[1000:])


@pytest.mark.parametrize("model", list(ROLLERS))
def test_no_forecast_sees_its_own_day_or_a_later_one(model: str, drawn: np.ndarray) -> None:
    series = drawn[:330]
    changed = series.copy()
    changed[315:318] = -0.05
    before, after = (forecast(one, model=model, window=300, level=0.95, refit=10) for one in (series, changed))
    np.testing.assert_allclose(before.value_at_risk[:16], after.value_at_risk[:16], rtol=1e-6)
    np.testing.assert_allclose(before.expected_shortfall[:16], after.expected_shortfall[:16], rtol=1e-6)
    if model not in ("student-t", "pot", "historical"):  # these keep their fit, or their rank, for these days
        assert after.value_at_risk[18] != before.value_at_risk[18]


@pytest.mark.parametrize("model", list(ROLLERS))
def test_shortfall_is_beyond_the_quantile_and_units_do_not_matter(model: str, drawn: np.ndarray) -> None:
    found = forecast(drawn[:320], model=model, window=300, level=0.975)
    assert (found.expected_shortfall >= found.value_at_risk).all()
    assert (found.value_at_risk > 0).all()
    percent = forecast(100 * drawn[:320], model=model, window=300, level=0.975)
    np.testing.assert_allclose(percent.value_at_risk, 100 * found.value_at_risk, rtol=2e-3)
    assert SUMMARIES[model]


@pytest.mark.parametrize("model", list(ROLLERS))
def test_todays_figure_is_what_a_forecast_for_tomorrow_would_be(model: str, drawn: np.ndarray) -> None:
    today = estimate(drawn[:400], model=model, window=400, level=0.95)
    tomorrow = forecast(drawn[:401], model=model, window=400, level=0.95)
    assert today.value_at_risk == pytest.approx(tomorrow.value_at_risk[0], rel=1e-6)
    assert today.expected_shortfall == pytest.approx(tomorrow.expected_shortfall[0], rel=1e-6)


@pytest.mark.parametrize("model", SIMULATABLE)
def test_ten_days_are_simulated_and_repeat(model: str, drawn: np.ndarray) -> None:
    ten = estimate(drawn, model=model, horizon=10, level=0.975, paths=4000)
    one = estimate(drawn, model=model, level=0.975)
    assert 1.5 * one.value_at_risk < ten.value_at_risk < 6 * one.value_at_risk
    assert ten == estimate(drawn, model=model, horizon=10, level=0.975, paths=4000)
    assert ten != estimate(drawn, model=model, horizon=10, level=0.975, paths=4000, seed=1)
    assert "seed 0" in ten.method
    root = estimate(drawn, model=model, horizon=10, level=0.975, scaling="sqrt")
    assert root.value_at_risk == pytest.approx(10**0.5 * one.value_at_risk, rel=1e-12)


def test_the_default_is_the_mean_of_its_two_parts(drawn: np.ndarray) -> None:
    assert DEFAULT == "fhs-combined"
    whole, slow, fitted = (
        forecast(drawn[:420], window=400, model=name, level=0.95) for name in (DEFAULT, "fhs-ewma", "fhs-gjr")
    )
    np.testing.assert_allclose(whole.value_at_risk, (slow.value_at_risk + fitted.value_at_risk) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: forecast(r, model="magic"), "no model 'magic'"),
        (lambda r: forecast(r[:400], window=400), "400 returns are too few"),
        (lambda r: forecast(r, window=99), "too short"),
        (lambda r: forecast(np.r_[r, np.nan], window=300), "position 700"),
        (lambda r: forecast(r, window=300, level=0.01), "confidence level"),
        (lambda r: forecast(r, window=300, refit=0), "refit"),
        (lambda r: forecast(np.r_[r, np.zeros(300)], window=300), "do not vary"),
        (lambda r: estimate(100 * r, horizon=10), "needs fractions"),
        (lambda r: estimate(r, model="pot", horizon=10, scaling="simulation"), "no paths"),
        (lambda r: estimate(r, model="pot", horizon=10, scaling="overlapping"), "no overlapping"),
        (lambda r: estimate(r[:99]), "99 returns are too few"),
    ],
)
def test_bad_requests_are_told_in_one_line(call, says: str, drawn: np.ndarray) -> None:
    with pytest.raises(UserError, match=says) as caught:
        call(drawn)
    assert caught.value.fix
