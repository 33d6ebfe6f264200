"""Value-at-risk and expected shortfall as a torch module, and the risk gate with its gradient.

The twin of `gate.py` for batches and gradients; the same conventions (losses positive, scenarios are profit and loss of
one unit with equal probability, lower quantile, exact tail mean). Both figures are weighted means of the largest losses
in order, so a gradient passes through the losses that carry weight:

- expected shortfall: minus the mean scenario of the tail, the boundary one with its fraction. Where losses tie at the
  boundary this is one element of the subdifferential (Rockafellar & Uryasev 2000, theorem 1);
- value-at-risk: minus the scenario at the quantile; where losses tie, that of one of the tied. It is not convex in the
  exposures, and its gradient jumps from scenario to scenario: `bandwidth` smooths it over neighbouring ones.

Not covered: scenario probabilities, gradients of second order (they are zero almost everywhere).
"""

# B = portfolios, N = instruments, S = scenarios, M = largest losses that carry weight

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from r1core import api
from r1core_var.gate import EPSILON, SMALLEST, Measure, tail_weights

_LARGE = 300  # binary orders of magnitude that scenarios may have before they are rescaled


class RiskFigures(NamedTuple):
    """Value-at-risk and expected shortfall of each portfolio, (B,) each; a loss is positive."""

    value_at_risk: torch.Tensor
    expected_shortfall: torch.Tensor


class VaRLayer(nn.Module):
    """Differentiable value-at-risk and expected shortfall of portfolios over scenarios.

    Parameters
    ----------
    level : of confidence, in (0.5, 1), for instance 0.99.
    bandwidth : above 0, value-at-risk is smoothed by an Epanechnikov kernel of this half-width in probability.

    Raises
    ------
    api.UserError : for a level outside of (0.5, 1), or a bandwidth outside of [0, 1).
    """

    def __init__(self, level: float = 0.99, bandwidth: float = 0.0) -> None:
        super().__init__()
        tail_weights(1, level)
        if not 0.0 <= bandwidth < 1.0:
            raise api.UserError(f"bandwidth {bandwidth}: expected a fraction in [0, 1)", fix="give 0 for none")
        self.level, self.bandwidth = level, bandwidth

    def forward(self, exposures: torch.Tensor, scenarios: torch.Tensor) -> RiskFigures:
        """The figures of exposures (B, N) over scenarios (S, N), or (B, S, N) where each portfolio has its own.

        Raises
        ------
        api.UserError : for shapes or dtypes that do not fit, NaN or infinity.
        """
        _check(exposures, scenarios)
        if exposures.dtype != scenarios.dtype:
            raise api.UserError(
                f"exposures are {exposures.dtype}, scenarios {scenarios.dtype}: expected one dtype",
                fix="convert one of them, float64 for exact figures",
            )
        losses = _losses(exposures, scenarios)
        count = losses.shape[1]
        var = _weights(losses, count, self.level, "var", self.bandwidth)
        es = _weights(losses, count, self.level, "es")
        largest = losses.topk(max(len(var), len(es)), dim=1).values
        return RiskFigures(largest[:, : len(var)] @ var, largest[:, : len(es)] @ es)

    def extra_repr(self) -> str:
        """What a printed module shows."""
        return f"level={self.level}, bandwidth={self.bandwidth}"


class GatedExposures(NamedTuple):
    """What the gate lets through: exposures (B, N), the factor of each row (B,) and its risk before the gate (B,)."""

    exposures: torch.Tensor
    factor: torch.Tensor
    risk: torch.Tensor


class RiskGate(nn.Module):
    """Scales exposures to a risk limit, `min(1, limit / risk)`, never over it; see `gate.gate` for the guarantee.

    Inside the limit it is the identity; beyond, the gradient is that of `limit * exposures / risk(exposures)`, in the
    limit and the scenarios too. The correction that keeps rounding under the limit (a factor of 1 - 1e-13 or so in
    float64) has no gradient.

    Parameters
    ----------
    measure : `es` or `var`; level : of confidence, in (0.5, 1).
    """

    def __init__(self, measure: Measure = "es", level: float = 0.975) -> None:
        super().__init__()
        tail_weights(1, level, measure)
        self.measure: Measure = measure
        self.level = level

    def forward(self, exposures: torch.Tensor, scenarios: torch.Tensor, limit: torch.Tensor | float) -> GatedExposures:
        """Gate exposures (B, N) over scenarios (S, N) or (B, S, N); `limit` is a number or (B,), >= 0.

        All is worked out in float64; exposures come back in their own dtype (float16, bfloat16, float32, float64), and
        are within the limit as rounded to it.

        Raises
        ------
        api.UserError : for shapes that do not fit, NaN, infinity or a negative limit.
        """
        _check(exposures, scenarios)
        wide = exposures.double()
        limits = torch.as_tensor(limit, dtype=torch.float64, device=wide.device).expand(len(wide))
        if not bool(torch.isfinite(limits).all()) or bool((limits < 0).any()):
            raise api.UserError("the risk limit holds a number that is no loss >= 0", fix="give finite limits >= 0")
        bound = _Bound(scenarios.double(), self.level, self.measure)
        before = bound(wide)
        budget = _shift(limits, before.exponent, -1)
        over = before.upper > budget
        told = _shift(before.risk, before.exponent)
        if not bool(over.any()):
            return GatedExposures(exposures, torch.ones_like(limits), told)
        with torch.no_grad():
            factor = torch.where(over, (budget / before.upper).clamp(max=1.0) * (1.0 - 4 * EPSILON), 1.0)
            scaled, factor = _stepped_down(wide, exposures.dtype, factor, bound, limits)
        risk = torch.where(before.risk > 0, before.risk, before.upper)  # what is over has either above zero
        ratio = torch.where(over, budget / torch.where(over, risk, 1.0), 1.0)
        through = before.unit * ratio[:, None]  # has the gradient; its value is replaced by the one that was checked
        gated = scaled + _shift(through - through.detach(), before.exponent)
        return GatedExposures(gated.to(exposures.dtype), factor, told)

    def extra_repr(self) -> str:
        """What a printed module shows."""
        return f"measure={self.measure}, level={self.level}"


class _Risk(NamedTuple):
    """Of exposures `unit * 2 ** exponent`: the risk of `unit` (B,), its upper bound without gradient, the exponent.

    The exponent is None where nothing had to be rescaled.
    """

    unit: torch.Tensor
    risk: torch.Tensor
    upper: torch.Tensor
    exponent: torch.Tensor | None


class _Bound:
    """Risks over scenarios, with an upper bound of what rounding may have hidden; nothing overflows on the way."""

    def __init__(self, scenarios: torch.Tensor, level: float, measure: Measure) -> None:
        reach = scenarios.detach().abs().amax(dim=-2)
        self._weights = _weights(scenarios, scenarios.shape[-2], level, measure)
        self._exponent = _extreme(reach.max()[None])
        if self._exponent is not None:
            scenarios, reach = _shift(scenarios, self._exponent, -1), _shift(reach, self._exponent, -1)
        self._scenarios, self._reach = scenarios, reach
        self._slack = float(scenarios.shape[-1] + len(self._weights) + 8)  # roundings on the way to one risk

    def __call__(self, exposures: torch.Tensor) -> _Risk:
        largest = exposures.detach().abs().amax(dim=1)
        exponent = _extreme(largest)
        unit = _shift(exposures, exponent, -1)
        risk = _risk(unit, self._scenarios, self._weights)
        with torch.no_grad():
            gross = (unit.abs() * self._reach).sum(dim=1)
            margin = self._slack * (EPSILON * gross).clamp(min=SMALLEST)
            upper = torch.where(largest == 0, 0.0, risk + margin)
        if exponent is not None or self._exponent is not None:
            exponent = sum((e for e in (exponent, self._exponent) if e is not None), torch.zeros_like(largest))
        return _Risk(unit, risk, upper, exponent)


def _extreme(largest: torch.Tensor) -> torch.Tensor | None:
    """Binary exponents (B,) as doubles, where one of them is so far from 0 that products could overflow; else None."""
    exponent = torch.frexp(largest).exponent
    return exponent.double() if int(exponent.abs().max()) > _LARGE else None


def _stepped_down(
    wide: torch.Tensor, dtype: torch.dtype, factor: torch.Tensor, bound: _Bound, limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exposures scaled and rounded to `dtype`, within the limits as such, and the factors (B,) that achieve it."""
    step = EPSILON
    while True:
        scaled = (wide * factor[:, None]).to(dtype).double()
        after = bound(scaled)
        over = (after.upper > _shift(limits, after.exponent, -1)) & (factor < 1.0)
        if not bool(over.any()):
            return scaled, factor
        factor = torch.where(over, factor * (1.0 - min(step, 1.0)), factor)
        step *= 2


def _risk(exposures: torch.Tensor, scenarios: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B,) the weighted mean of each row's largest losses."""
    return _losses(exposures, scenarios).topk(len(weights), dim=1).values @ weights


def _losses(exposures: torch.Tensor, scenarios: torch.Tensor) -> torch.Tensor:
    """(B, S), a loss positive."""
    if scenarios.ndim == 2:
        return -(exposures @ scenarios.T)
    return -(scenarios @ exposures[:, :, None])[:, :, 0]


def _weights(like: torch.Tensor, count: int, level: float, measure: Measure, width: float = 0.0) -> torch.Tensor:
    return torch.tensor(tail_weights(count, level, measure, width), dtype=like.dtype, device=like.device)


def _shift(values: torch.Tensor, exponent: torch.Tensor | None, sign: int = 1) -> torch.Tensor:
    """`values * 2 ** (sign * exponent)` row by row, in three steps, since the power alone may be no double."""
    if exponent is None:
        return values
    each = (sign * exponent).reshape(-1, *(1,) * (values.ndim - 1))
    third = (each / 3).trunc()
    for part in (third, third, each - 2 * third):
        values = values * torch.exp2(part)
    return values


def _check(exposures: torch.Tensor, scenarios: torch.Tensor) -> None:
    rows, columns = (tuple(exposures.shape), tuple(scenarios.shape))
    fits = len(rows) == 2 and len(columns) in (2, 3) and columns[-1] == rows[1] and 0 not in rows + columns
    if not fits or (len(columns) == 3 and columns[0] != rows[0]):
        raise api.UserError(
            f"exposures of shape {rows} over scenarios of shape {columns}: expected (B, N) and (S, N) or (B, S, N)",
            fix="give one column of scenarios for each exposure",
        )
    for name, values in (("exposures", exposures), ("scenarios", scenarios)):
        if not values.is_floating_point() or not bool(torch.isfinite(values.detach().abs().amax())):
            raise api.UserError(
                f"the {name} hold NaN or infinity, or are no floats",
                fix="leave those rows out or fill them first",
            )
