"""All backtests of one series of forecasts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r1core import api
from r1core_var.backtests.coverage import christoffersen_conditional, christoffersen_independence, kupiec
from r1core_var.backtests.dynamic_quantile import LAGS, dynamic_quantile
from r1core_var.backtests.scores import pinball
from r1core_var.backtests.shortfall import acerbi_szekely, excess_residuals
from r1core_var.backtests.traffic_light import DAYS, TrafficLight, traffic_light
from r1core_var.checks import level_of
from r1core_var.values import Forecasts, Verdict

LEAST = 2 * LAGS + 3  # days; the dynamic quantile test has a regressor for each lag and two more


@dataclass(frozen=True, slots=True)
class Backtest:
    """What happened against what was forecast.

    `light` is of the last 250 days (fewer where there are fewer). `worst` is the largest loss in units of its
    forecast, of the days whose forecast is a loss; NaN where none is.
    """

    days: int
    exceedances: int
    expected: float
    pinball: float
    worst: float
    light: TrafficLight
    verdicts: tuple[Verdict, ...]

    def rejections(self, size: float = 0.05) -> tuple[str, ...]:
        """Names of the tests that reject the model at this size."""
        return tuple(one.test for one in self.verdicts if one.rejected(size))


def backtest(forecasts: Forecasts, *, seed: int = 0) -> Backtest:
    """Run every test on one series of forecasts.

    Raises
    ------
    api.UserError : for too few days, or an expected shortfall that is not positive or below its value-at-risk.
    """
    f = forecasts
    beyond = f.exceedances
    if len(beyond) < LEAST:
        raise api.UserError(
            f"{len(beyond)} days are forecast, expected at least {LEAST}",
            fix=f"give a longer series, or a shorter window than {f.window} days",
        )
    recent, positive = beyond[-DAYS:], f.value_at_risk > 0
    verdicts = (
        kupiec(beyond, f.level),
        christoffersen_independence(beyond),
        christoffersen_conditional(beyond, f.level),
        dynamic_quantile(beyond, f.value_at_risk, f.level),
        *acerbi_szekely(f.losses, f.value_at_risk, f.expected_shortfall, f.level, seed=seed),
        excess_residuals(f.losses, f.value_at_risk, f.expected_shortfall),
    )
    return Backtest(
        len(beyond),
        int(beyond.sum()),
        float((1 - level_of(f.level)) * len(beyond)),
        pinball(f.losses, f.value_at_risk, f.level),
        float(np.max(f.losses[positive] / f.value_at_risk[positive])) if positive.any() else float("nan"),
        traffic_light(int(recent.sum()), len(recent), f.level),
        verdicts,
    )
