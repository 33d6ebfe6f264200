"""The accountants against the published figures, closed forms and one another."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_dp.accounting import Phase, epsilon_of, merged, noise_for, of_group, pld, prv
from scipy.stats import norm

from r1core.api import UserError

DELTA, RATE, STEPS = 3.98e-5, 64 / 10_000, 471


def gaussian_delta(noise: float, epsilon: float) -> float:
    """Of one step without sampling (Balle & Wang 2018, theorem 8)."""
    return float(
        norm.cdf(1 / (2 * noise) - epsilon * noise) - math.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise)
    )


def test_the_noise_of_the_reference_training() -> None:
    found = noise_for(3.0, DELTA, RATE, STEPS)
    assert found == pytest.approx(0.631, abs=0.002)
    told = epsilon_of([Phase(found, RATE, STEPS)], DELTA)
    assert told.value <= 3.0
    assert abs(told.prv - told.pld) <= 0.02


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("records", "noise"),
    [pytest.param(2, 0.778, marks=SLOW), pytest.param(4, 1.056, marks=SLOW), (8, 1.681)],
)
def test_a_group_of_several_records_needs_the_noise_of_the_reference(records: int, noise: float) -> None:
    phases = [Phase(noise, RATE, STEPS)]
    assert of_group(phases, DELTA, records) == pytest.approx(3.0, abs=0.05)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.8, 5.0), st.floats(1e-6, 1e-3))
def test_a_step_without_sampling_is_the_gaussian_mechanism(noise: float, delta: float) -> None:
    for epsilon in (prv([Phase(noise, 1.0, 1)], delta), pld([Phase(noise, 1.0, 1)], delta)):
        assert gaussian_delta(noise, epsilon) <= delta * (1 + 1e-6)
        assert gaussian_delta(noise, epsilon - 0.03) >= delta


def test_what_is_spent_already_counts() -> None:
    spent = [Phase(1.0, 0.01, 300)]
    noise = noise_for(2.0, 1e-5, 0.01, 200, spent)
    alone = noise_for(2.0, 1e-5, 0.01, 200)
    assert noise > alone
    assert epsilon_of([*spent, Phase(noise, 0.01, 200)], 1e-5).value <= 2.0
    with pytest.raises(UserError, match=r"no noise of use brings .* of it is spent"):
        noise_for(prv(spent, 1e-5) * 0.9, 1e-5, 0.01, 200, spent)


def test_equal_steps_are_joined() -> None:
    one = Phase(1.0, 0.01, 1)
    assert merged([one, Phase(2.0, 0.01, 5), one]) == [Phase(1.0, 0.01, 2), Phase(2.0, 0.01, 5)]
    assert (prv([], 1e-5), pld([], 1e-5)) == (0.0, 0.0)


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(UserError, match="needs opacus") as raised:
        prv([Phase(1.234, 0.01, 7)], 1e-5)
    assert "r1core-dp[train]" in raised.value.fix
    assert pld([Phase(1.234, 0.01, 7)], 1e-5) > 0
