"""The accountants against the published figures, closed forms and one another."""

from __future__ import annotations

import math
import sys
import warnings

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from r1core_dp.accounting import MOST, Phase, epsilon_of, merged, noise_for, of_group, pld, prv
from scipy.stats import norm

from r1core.api import UserError

DELTA, RATE, STEPS = 3.98e-5, 64 / 10_000, 471


def gaussian_delta(noise: float, epsilon: float) -> float:
    """Of one step without sampling (Balle & Wang 2018, theorem 8)."""
    return float(
        norm.cdf(1 / (2 * noise) - epsilon * noise) - math.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise)
    )


def by_opacus(phases: list[Phase], delta: float) -> float:
    """As the library reckons by itself."""
    accountant = PRVAccountant()
    accountant.history = [(phase.noise_multiplier, phase.sample_rate, phase.steps) for phase in phases]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        return float(accountant.get_epsilon(delta))


def by_google(phases: list[Phase], delta: float) -> float:
    """As the library reckons by itself."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for phase in phases:
        gaussian = dp_accounting.GaussianDpEvent(phase.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(phase.sample_rate, gaussian), phase.steps)
    return float(accountant.get_epsilon(delta))


SLOW = pytest.mark.slow
SEVERAL = [Phase(0.8, 0.05, 40), Phase(1.3, 0.02, 200), Phase(0.8, 0.02, 9)]


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param(SEVERAL, marks=SLOW),
        SEVERAL[:1],
        pytest.param([Phase(0.9, 0.0064, 20_000)], marks=SLOW),
        [Phase(1.7, 1.0, 3)],
    ],
)
def test_both_accountants_are_those_of_the_libraries(phases: list[Phase]) -> None:
    assert prv(phases, 1e-5) == pytest.approx(by_opacus(phases, 1e-5), abs=1e-9)
    told, expected = pld(phases, 1e-5), by_google(phases, 1e-5)
    assert expected - 1e-6 <= told <= expected + 5e-4  # on a wider grid, which may only add


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "spent"),
    [
        (3.0, 0.19, 25, []),
        (0.6, 0.002, 300, []),
        pytest.param(8.0, 0.05, 90, SEVERAL[:1], marks=SLOW),
        pytest.param(3.0, 0.02, 60, SEVERAL[1:], marks=SLOW),
        pytest.param(1.6, 0.02, 100, SEVERAL[1:], marks=SLOW),  # most of it is spent
    ],
)
def test_it_is_the_least_noise_to_a_thousandth(epsilon: float, rate: float, steps: int, spent: list[Phase]) -> None:
    noise = noise_for(epsilon, DELTA, rate, steps, spent)
    enough, less = ([*spent, Phase(n, rate, steps)] for n in (noise, noise / 1.0011))
    assert max(by_opacus(enough, DELTA), by_google(enough, DELTA)) <= epsilon
    assert by_opacus(less, DELTA) > epsilon


def test_where_more_than_four_times_the_noise_is_needed_it_refuses() -> None:
    spent = [Phase(0.8, 0.05, 40)]
    epsilon = by_opacus(spent, DELTA) + 0.002
    with pytest.raises(UserError, match="no noise of use brings 30 steps below"):
        noise_for(epsilon, DELTA, 0.05, 30, spent)
    most = MOST * noise_for(epsilon, DELTA, 0.05, 30)
    assert by_opacus([*spent, Phase(most, 0.05, 30)], DELTA) > epsilon


@SLOW
def test_steps_that_are_none_need_no_noise_and_a_delta_that_is_enough_next_to_none() -> None:
    assert noise_for(1.0, 1e-5, 0.1, 0) == noise_for(9.0, 1e-5, 0.05, 0, SEVERAL) == 0.0
    assert noise_for(3.0, 0.02, 0.01, 1) < 0.11  # the unit is not drawn at all with a chance of 0.99
    assert noise_for(3.0, 1e-5, 1.0, 2000) == pytest.approx(2000**0.5 * noise_for(3.0, 1e-5, 1.0, 1), rel=5e-3)


def test_the_noise_of_the_reference_training() -> None:
    found = noise_for(3.0, DELTA, RATE, STEPS)
    assert found == pytest.approx(0.631, abs=0.002)
    told = epsilon_of([Phase(found, RATE, STEPS)], DELTA)
    assert told.value <= 3.0
    assert abs(told.prv - told.pld) <= 0.02


@SLOW
@pytest.mark.parametrize(("records", "noise"), [(2, 0.778), (4, 1.056), (8, 1.681)])
def test_a_group_of_several_records_needs_the_noise_of_the_reference(records: int, noise: float) -> None:
    phases = [Phase(noise, RATE, STEPS)]
    assert of_group(phases, DELTA, records) == pytest.approx(3.0, abs=0.05)


def test_a_group_lies_between_one_unit_drawn_as_often_and_one_with_its_whole_sum() -> None:
    often = 1 - (1 - 0.01) ** 2  # that at least one of two records is drawn
    told = of_group([Phase(3.0, 0.01, 5)], DELTA, 2)
    least, most = (by_opacus([Phase(noise, often, 5)], DELTA) for noise in (3.0, 1.5))
    assert least - 0.011 <= told <= most  # Opacus adds 0.01 for its own error


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
    monkeypatch.setitem(sys.modules, "opacus.accountants.analysis", None)
    with pytest.raises(UserError, match="needs opacus") as raised:
        prv([Phase(1.234, 0.01, 7)], 1e-5)
    assert "r1core-dp[train]" in raised.value.fix
    assert pld([Phase(1.234, 0.01, 7)], 1e-5) > 0
