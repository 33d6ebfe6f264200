"""Figures for today: any model on the last window of a series, over one or more days.

Over several days a model is scaled by one of: `simulation` (paths of the volatility model: fhs-*, garch-*, gjr-*; the
default for these), `sqrt` (one-day figure times the square root of the days; the default for the others) and
`overlapping` (historical only).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var import historical
from r1core_var.checks import Array, NanPolicy, horizon_of, series
from r1core_var.distributions import DistributionName
from r1core_var.garch import GarchFit, fit
from r1core_var.rolling import DEFAULT, LEAST_WINDOW, SUMMARIES, WINDOW, checked, roller
from r1core_var.simulation import PATHS, compounded, from_draws, garch_paths, generator
from r1core_var.values import Risk
from r1core_var.volatility import RISKMETRICS_DECAY, ewma_variance

Scaling = Literal["simulation", "sqrt", "overlapping"]
# model -> (GJR?, distribution of the fit, residuals resampled?); `fhs-ewma` and `fhs-combined` are built from these
# below
_SIMULATED: dict[str, tuple[bool, DistributionName, bool]] = {
    "garch": (False, "normal", False),
    "gjr": (True, "normal", False),
    "garch-t": (False, "t", False),
    "garch-skewt": (False, "skewt", False),
    "gjr-skewt": (True, "skewt", False),
    "fhs-garch": (False, "normal", True),
    "fhs-gjr": (True, "normal", True),
}
SIMULATABLE = (*_SIMULATED, "fhs-ewma", "fhs-combined")


def estimate(
    returns: npt.ArrayLike,
    *,
    model: str = DEFAULT,
    level: float = 0.99,
    horizon: int = 1,
    window: int | None = None,
    scaling: Scaling | None = None,
    kind: historical.ReturnKind = "simple",
    paths: int = PATHS,
    seed: int = 0,
    nan_policy: NanPolicy = "refuse",
) -> Risk:
    """Value-at-risk and expected shortfall of the next `horizon` days, from the last `window` returns; losses positive.

    Parameters
    ----------
    returns : `(T,)` daily; fractions where simple returns are compounded over several days. window : None = 1,000, or
        all where there are fewer.
    kind : how days compound: simple returns multiply, log returns add.

    Raises
    ------
    api.UserError : for an unknown model or scaling, too few returns, or values that are not finite.
    """
    make, days = roller(model), horizon_of(horizon)
    values = series(returns, nan_policy=nan_policy)
    used = max(min(len(values), WINDOW), LEAST_WINDOW) if window is None else window
    values = checked(values, used, level, days=0)[-used:]
    if days == 1 or scaling == "sqrt" or (scaling is None and model not in SIMULATABLE):
        var, es = make(values, used, level, 1)
        root = float(np.sqrt(days))
        words = f"{model} ({SUMMARIES[model]}), {used} days" + (f", 1 day times sqrt({days})" if days > 1 else "")
        return Risk(root * float(var[-1]), root * float(es[-1]), level, days, words)
    if kind == "simple" and (np.abs(values) >= 1).any():
        raise api.UserError(
            f"returns reach {values[np.argmax(np.abs(values))]:g}; compounding needs fractions",
            fix='divide percent returns by 100, or use scaling="sqrt"',
        )
    if scaling == "overlapping":
        if model != "historical":
            raise api.UserError(
                f"no overlapping windows for {model}", fix="use the model historical, or another scaling"
            )
        return historical.historical(values, level, horizon=days, scaling="overlapping", kind=kind)
    if model not in SIMULATABLE:
        raise api.UserError(f"{model} has no paths to simulate", fix=f"use sqrt, or one of {', '.join(SIMULATABLE)}")
    drawn = [
        from_draws(-compounded(_paths(values, one, days, paths, seed), kind), level, days, one, seed)
        for one in (("fhs-ewma", "fhs-gjr") if model == "fhs-combined" else (model,))
    ]
    return Risk(
        float(np.mean([one.value_at_risk for one in drawn])),
        float(np.mean([one.expected_shortfall for one in drawn])),
        level,
        days,
        f"{model}, {used} days; mean of " * (len(drawn) > 1) + "; ".join(one.method for one in drawn),
    )


def _paths(values: Array, model: str, days: int, paths: int, seed: int) -> Array:
    rng = generator(seed)
    if model == "fhs-ewma":
        variance = ewma_variance(values)
        residuals = values / np.sqrt(variance[:-1])
        draws = residuals[rng.integers(len(residuals), size=(paths, days))]
        alpha, last = 1 - RISKMETRICS_DECAY, float(variance[-1])
        return garch_paths(draws, mu=0.0, omega=0.0, alpha=alpha, gamma=0.0, beta=RISKMETRICS_DECAY, variance=last)
    asymmetric, distribution, resampled = _SIMULATED[model]
    fitted: GarchFit = fit(values, asymmetric=asymmetric, distribution=distribution)
    if resampled:
        draws = fitted.residuals[rng.integers(len(values), size=(paths, days))]
    else:
        draws = fitted.innovations.quantile(rng.random((paths, days)))
    return garch_paths(
        draws, mu=fitted.mu, omega=fitted.omega, alpha=fitted.alpha, gamma=fitted.gamma, beta=fitted.beta,
        variance=float(fitted.variance[-1]),
    )  # fmt: skip
