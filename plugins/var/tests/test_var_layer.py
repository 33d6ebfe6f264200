"""The layer against brute force, finite differences and the properties that a risk measure has."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var.gate import portfolio_risk, tail_weights
from r1core_var.layer import VaRLayer
from scipy.optimize import linprog

from r1core import api

LEVELS = ("0.95", "0.975", "0.99", "0.9", "0.999")


def by_definition(losses: list[float], level: str) -> tuple[float, float]:
    """Value-at-risk as inf{l : F(l) >= level} and the tail mean, in fractions."""
    exact, ordered = [Fraction(x) for x in losses], sorted(Fraction(x) for x in losses)
    count, p = len(exact), Fraction(level)
    var = next(x for x in ordered if Fraction(sum(y <= x for y in exact), count) >= p)
    excess = sum((max(x - var, Fraction(0)) for x in exact), Fraction(0)) / count
    return float(var), float(var + excess / (1 - p))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.sampled_from(LEVELS))
def test_both_figures_are_those_of_the_definition(losses: list[float], level: str) -> None:
    scenarios = -torch.tensor(losses, dtype=torch.float64)[:, None]
    figures = VaRLayer(float(level))(torch.ones(1, 1, dtype=torch.float64), scenarios)
    var, es = by_definition(losses, level)
    size = max(map(abs, losses))
    assert figures.value_at_risk.item() == var
    assert figures.expected_shortfall.item() == pytest.approx(es, abs=1e-12 * size, rel=1e-12)
    assert portfolio_risk([1.0], scenarios.numpy(), level=float(level)) == pytest.approx(
        es, abs=1e-12 * size, rel=1e-12
    )
    assert portfolio_risk([1.0], scenarios.numpy(), level=float(level), measure="var") == var


@pytest.mark.parametrize("level", [0.95, 0.975, 0.99])
def test_expected_shortfall_is_the_minimum_of_rockafellar_and_uryasev(level: float) -> None:
    losses = np.random.default_rng(3).standard_t(3, 130)
    count = len(losses)
    cost = np.append(1.0, np.full(count, 1 / ((1 - level) * count)))  # t + mean((loss - t)+) / (1 - level)
    above = np.hstack([-np.ones((count, 1)), -np.eye(count)])
    solved = linprog(cost, A_ub=above, b_ub=-losses, bounds=[(None, None), *[(0, None)] * count])
    found = VaRLayer(level)(torch.ones(1, 1, dtype=torch.float64), -torch.tensor(losses)[:, None])
    assert found.expected_shortfall.item() == pytest.approx(solved.fun, rel=1e-9)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("bandwidth", [0.0, 0.03])
def test_gradients_are_finite_differences(shared: bool, bandwidth: float) -> None:
    torch.manual_seed(0)
    exposures = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    scenarios = torch.randn(*(() if shared else (3,)), 57, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(VaRLayer(0.9, bandwidth), (exposures, scenarios))


def test_the_gradient_of_expected_shortfall_is_minus_the_mean_of_the_tail() -> None:
    scenarios = torch.tensor(np.random.default_rng(0).normal(size=(100, 3)))
    exposures = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    figures = VaRLayer(0.95)(exposures, scenarios)
    worst = (scenarios @ exposures.detach()[0]).argsort()
    (es,) = torch.autograd.grad(figures.expected_shortfall.sum(), exposures, retain_graph=True)
    (var,) = torch.autograd.grad(figures.value_at_risk.sum(), exposures)
    torch.testing.assert_close(es[0], -scenarios[worst[:5]].mean(0))
    torch.testing.assert_close(var[0], -scenarios[worst[5]])
    torch.testing.assert_close((es * exposures).sum(), figures.expected_shortfall[0])  # Euler: it is homogeneous


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-100, 100), st.sampled_from([0.0, 0.05]))
def test_figures_scale_shift_and_do_not_depend_on_the_order(
    seed: int, factor: float, shift: float, bandwidth: float
) -> None:
    rng = np.random.default_rng(seed)
    scenarios = torch.tensor(rng.normal(size=(int(rng.integers(1, 80)), 3)))
    exposures = torch.tensor(rng.normal(size=(2, 3)))
    layer = VaRLayer(0.95, bandwidth)
    base = layer(exposures, scenarios)
    cash = torch.cat([scenarios, torch.ones(len(scenarios), 1, dtype=torch.float64)], 1)
    with_cash = torch.cat([exposures, torch.full((2, 1), shift, dtype=torch.float64)], 1)
    for plain, scaled, shifted, shuffled in zip(
        base,
        layer(exposures * factor, scenarios),
        layer(with_cash, cash),
        layer(exposures, scenarios[torch.tensor(rng.permutation(len(scenarios)))]),
        strict=True,
    ):
        torch.testing.assert_close(scaled, plain * factor, rtol=1e-9, atol=1e-9 * factor)
        torch.testing.assert_close(shifted, plain - shift, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(shuffled, plain, rtol=1e-12, atol=1e-12)
    assert bool((base.expected_shortfall >= layer(exposures, scenarios).value_at_risk - 1e-12).all()) or bandwidth


@given(st.integers(0, 1_000))
def test_expected_shortfall_is_subadditive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenarios, pair = torch.tensor(rng.standard_t(2, (41, 4))), torch.tensor(rng.normal(size=(2, 4)))
    apart = VaRLayer(0.9)(pair, scenarios).expected_shortfall.sum()
    together = VaRLayer(0.9)(pair.sum(0, keepdim=True), scenarios).expected_shortfall[0]
    assert together <= apart + 1e-9 * apart.abs() + 1e-9


def test_each_portfolio_may_have_its_own_scenarios_and_float32_is_close() -> None:
    rng = np.random.default_rng(5)
    scenarios, exposures = torch.tensor(rng.normal(size=(2, 200, 3))), torch.tensor(rng.normal(size=(2, 3)))
    both = VaRLayer()(exposures, scenarios)
    narrow = VaRLayer()(exposures.float(), scenarios.float())
    for row in range(2):
        alone = VaRLayer()(exposures[row : row + 1], scenarios[row])
        for ours, own, single in zip(both, alone, narrow, strict=True):
            torch.testing.assert_close(ours[row], own[0])
            assert single.dtype == torch.float32
            torch.testing.assert_close(single[row].double(), own[0], rtol=1e-5, atol=1e-5)


def test_smoothing_has_the_weights_of_the_kernel_and_tends_to_the_quantile() -> None:
    weights = tail_weights(500, 0.95, "var", 0.02)
    assert weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert np.flatnonzero(weights > 0)[[0, -1]].tolist() == [15, 34]  # tail probabilities 0.03 to 0.07
    assert np.allclose(weights[15:35], weights[15:35][::-1])
    losses = np.random.default_rng(1).normal(size=(20_000, 1))
    smooth = VaRLayer(0.95, 0.005)(torch.ones(1, 1, dtype=torch.float64), -torch.tensor(losses)).value_at_risk
    assert smooth.item() == pytest.approx(1.6449, abs=0.03)


@pytest.mark.parametrize(
    ("exposures", "scenarios", "told"),
    [
        (torch.tensor([[math.nan, 1.0]]), torch.ones(3, 2), "NaN"),
        (torch.ones(1, 2), torch.tensor([[1.0, math.inf]]), "infinity"),
        (torch.ones(1, 3), torch.ones(3, 2), "shape"),
        (torch.ones(2), torch.ones(3, 2), "shape"),
        (torch.ones(2, 2), torch.ones(3, 5, 2), "shape"),
        (torch.ones(1, 2), torch.ones(0, 2), "shape"),
        (torch.ones(1, 2), torch.ones(3, 2, dtype=torch.float64), "dtype"),
        (torch.ones(1, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64), "no floats"),
    ],
)
def test_what_cannot_be_computed_is_refused(exposures: torch.Tensor, scenarios: torch.Tensor, told: str) -> None:
    with pytest.raises(api.UserError, match=told):
        VaRLayer()(exposures, scenarios)


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in (0.0, 1.0, 99, 0.01):
        with pytest.raises(api.UserError, match="level"):
            VaRLayer(wrong)
    with pytest.raises(api.UserError, match="bandwidth"):
        VaRLayer(0.95, 1.0)
    with pytest.raises(api.UserError, match="bandwidth"):
        tail_weights(10, 0.95, "es", 0.1)
