"""The gate: never over the limit in exact arithmetic, the identity inside, gradients on both sides."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from r1core_var.gate import gate, portfolio_risk
from r1core_var.layer import RiskGate

from r1core import api

TRIALS = 10_000
UNIT = 2**1074
MAGNITUDES = (1e-320, 1e-300, 1e-20, 1e-4, 1.0, 1e6, 1e20, 1e150, 1e300)


def exact_risk(exposures: NDArray[np.floating], scenarios: NDArray[np.float64], level: str, measure: str) -> Fraction:
    """The risk in fractions, straight from the definition."""
    held = [whole_number(x) for x in exposures.tolist()]
    table = [[whole_number(c) for c in row] for row in scenarios.tolist()]
    losses = sorted((-sum(c * x for c, x in zip(row, held, strict=True)) for row in table), reverse=True)
    mass = (1 - Fraction(level)) * len(losses)
    whole = int(mass)
    if measure == "var":
        return Fraction(losses[whole], UNIT**2)
    edge = (mass - whole) * losses[whole] if whole < len(losses) else Fraction(0)
    return (sum(losses[:whole]) + edge) / (mass * UNIT**2)


def whole_number(x: float) -> int:
    """Any double in units of the smallest one."""
    above, below = x.as_integer_ratio()
    return above * (UNIT // below)


def trial(rng: np.random.Generator) -> tuple[NDArray[np.floating], NDArray[np.float64], float]:
    """Exposures, scenarios and a limit of any size; hedged, sparse, tiny or huge ones among them."""
    count, assets = int(rng.integers(1, 11)), int(rng.integers(1, 6))
    scenarios = rng.standard_t(3, (count, assets)) * rng.choice(MAGNITUDES[1:-1])
    exposures = rng.normal(size=assets) * rng.choice(MAGNITUDES)
    kind = rng.integers(7)
    if kind == 0:
        exposures[rng.integers(assets)] = 0.0
    elif kind == 1:
        exposures[:] = 0.0
    elif kind == 2 and assets > 1:  # nearly hedged: the risk is a small difference of large numbers
        scenarios[:, 1] = scenarios[:, 0] * (1 + 1e-12 * rng.normal(size=count))
        exposures[1] = -exposures[0]
    elif kind == 3:
        scenarios = np.abs(scenarios)  # gains throughout when long
    dtype = (np.float64, np.float32, np.float16)[rng.integers(3)]
    with np.errstate(over="ignore"):
        narrow = exposures.astype(dtype)
    if not np.isfinite(narrow).all():
        narrow = rng.normal(size=assets).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(narrow.astype(np.float64)).max() * np.abs(scenarios).max()
    limit = float(rng.choice([0.0, 1.0, 5e-324, 1e-310, 1e300, size * rng.random(), size * 1e-9]))
    return narrow, scenarios, limit if math.isfinite(limit) else 1e300


@pytest.mark.slow
def test_no_output_is_over_the_limit_in_exact_arithmetic() -> None:
    rng = np.random.default_rng(20261127)
    modules = {measure: RiskGate(measure, 0.9) for measure in ("es", "var")}
    scaled = 0
    for number in range(TRIALS):
        exposures, scenarios, limit = trial(rng)
        measure = ("es", "var")[number % 2]
        passed = gate(exposures, scenarios, limit, measure=measure, level=0.9)  # type: ignore[arg-type]
        outputs = [passed.exposures]
        if number % 4 < 2:
            given_as = torch.tensor(exposures)[None]
            other = modules[measure](given_as, torch.tensor(scenarios), limit).exposures[0].numpy()
            outputs += [] if np.array_equal(other, outputs[0]) else [other]
        for out in outputs:
            assert out.dtype == exposures.dtype
            assert np.isfinite(out).all()
            assert (np.abs(out) <= np.abs(exposures)).all()
            assert (out * np.sign(exposures) >= 0).all()
            assert exact_risk(out, scenarios, "0.9", measure) <= Fraction(limit), number
        scaled += passed.factor < 1.0
    assert TRIALS * 0.2 < scaled < TRIALS * 0.9


def test_it_scales_no_more_than_it_must() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        exposures, scenarios = rng.normal(size=20), rng.standard_t(4, (1000, 20))
        risk = portfolio_risk(exposures, scenarios)
        limit = risk * rng.random()
        passed = gate(exposures, scenarios, limit)
        assert portfolio_risk(passed.exposures, scenarios) == pytest.approx(limit, rel=1e-11)
        assert passed.factor == pytest.approx(limit / risk, rel=1e-11)
        assert passed.risk == risk
        inside = gate(exposures, scenarios, risk * 1.001)
        assert inside.factor == 1.0
        assert np.array_equal(inside.exposures, exposures)


def test_exposures_come_back_as_given_where_they_have_no_risk() -> None:
    gains = np.abs(np.random.default_rng(0).normal(size=(50, 2)))
    assert np.array_equal(gate([3.0, 4.0], gains, 0.0).exposures, [3.0, 4.0])
    assert np.array_equal(gate([3.0, 4.0], -gains, 0.0).exposures, [0.0, 0.0])
    assert np.array_equal(gate([0, 0], -gains, 0.0).exposures, [0.0, 0.0])


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_a_constant_loss_is_part_of_the_risk(seed: int, constant: float) -> None:
    rng = np.random.default_rng(seed)
    scenarios, exposures = rng.normal(size=(40, 3)), rng.normal(size=3)
    limit = 3.0
    passed = gate(exposures, scenarios, limit, level=0.9, constant=constant)
    assert portfolio_risk(passed.exposures, scenarios, level=0.9) + constant <= limit
    risk = portfolio_risk(exposures, scenarios, level=0.9)
    expected = min(1.0, (limit - constant) / risk) if risk > 0 else 1.0
    assert passed.factor == pytest.approx(expected, rel=1e-9)


def test_a_constant_over_the_limit_is_refused_unless_the_exposures_make_up_for_it() -> None:
    gains = np.full((10, 1), 2.0)
    assert gate([1.0], gains, 1.0, constant=2.5).factor == 1.0  # a certain gain of 2 leaves 0.5
    with pytest.raises(api.UserError, match=r"constant loss 2\.5 alone"):
        gate([0.5], gains, 1.0, constant=2.5)


@pytest.mark.parametrize("measure", ["es", "var"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_finite_differences_on_both_sides(measure: str, shared: bool) -> None:
    torch.manual_seed(1)
    module = RiskGate(measure, 0.9)  # type: ignore[arg-type]
    exposures = torch.randn(3, 4, dtype=torch.float64)
    scenarios = torch.randn(*(() if shared else (3,)), 45, 4, dtype=torch.float64)
    risk = module(exposures, scenarios, 1e9).risk
    limit = risk * torch.tensor([0.5, 2.0, 0.9], dtype=torch.float64)  # beyond, inside, beyond
    given_as = [x.requires_grad_() for x in (exposures, scenarios, limit)]
    assert torch.autograd.gradcheck(lambda *x: module(*x).exposures, given_as)
    gated = module(exposures, scenarios, limit)
    (inside,) = torch.autograd.grad(gated.exposures[1].sum(), exposures)
    assert torch.equal(inside[1], torch.ones(4, dtype=torch.float64))
    assert gated.factor[1] == 1.0
    assert torch.allclose(gated.factor, (limit / risk).clamp(max=1.0))


def test_a_batch_of_extremes_has_finite_gradients() -> None:
    exposures = torch.tensor([[1e300, -1e300], [1e-300, 2e-300], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    scenarios = torch.tensor(np.random.default_rng(2).normal(size=(30, 2)) * 1e9)
    exposures.requires_grad_()
    gated = RiskGate(level=0.9)(exposures, scenarios, 1.0)
    assert gated.factor.tolist()[1:3] == [1.0, 1.0]
    gated.exposures.sum().backward()
    assert exposures.grad is not None
    assert bool(torch.isfinite(exposures.grad).all())


def test_torch_and_numpy_agree() -> None:
    rng = np.random.default_rng(8)
    for _ in range(50):
        exposures, scenarios = rng.normal(size=(4, 5)), rng.normal(size=(60, 5))
        gated = RiskGate(level=0.95)(
            torch.tensor(exposures), torch.tensor(scenarios), torch.full((4,), 1.2, dtype=torch.float64)
        )
        for row in range(4):
            alone = gate(exposures[row], scenarios, 1.2, level=0.95)
            assert gated.factor[row].item() == pytest.approx(alone.factor, rel=1e-12)
            assert gated.risk[row].item() == pytest.approx(alone.risk, rel=1e-12)


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(api.UserError, match="limit"):
        gate([1.0], [[1.0]], limit)
    with pytest.raises(api.UserError, match="limit"):
        RiskGate()(torch.ones(1, 1), torch.ones(1, 1), limit)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    for exposures, scenarios in (([bad, 1.0], [[1.0, 2.0]]), ([1.0, 1.0], [[1.0, bad]])):
        with pytest.raises(api.UserError, match="NaN or infinity"):
            gate(exposures, scenarios, 1.0)
        with pytest.raises(api.UserError, match="NaN or infinity"):
            RiskGate()(torch.tensor([exposures]), torch.tensor(scenarios), 1.0)
    with pytest.raises(api.UserError, match="constant"):
        gate([1.0], [[1.0]], 1.0, constant=bad)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for exposures, scenarios in (([1.0], [[1.0, 2.0]]), ([[1.0]], [[1.0]]), ([1.0], np.ones((0, 1)))):
        with pytest.raises(api.UserError, match="shape"):
            gate(exposures, scenarios, 1.0)


def test_a_constant_that_reaches_the_limit_lets_through_what_has_no_risk() -> None:
    assert gate([1.0], [[-1.0], [0.5]], 3.0, constant=3.0).exposures.tolist() == [0.0]
    assert gate([1.0], [[1.0], [0.5]], 3.0, constant=3.0).factor == 1.0
    assert gate([1.0], [[-1.0]], 0.3, constant=0.1).exposures[0] <= Fraction(0.3) - Fraction(0.1)
