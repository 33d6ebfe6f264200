"""The values that the models return. Losses are positive everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Risk:
    """Value-at-risk and expected shortfall of one position.

    Losses are positive, in the unit of the returns that were given (a fraction 0.023 is 2.3 %). Either may be
    negative, where even the tail is a gain.

    Parameters
    ----------
    level : confidence, such as 0.99. horizon : days. method : model and conventions, in words.
    """

    value_at_risk: float
    expected_shortfall: float
    level: float
    horizon: int
    method: str


@dataclass(frozen=True, slots=True)
class Forecasts:
    """One-day forecasts made on the evening before, aligned with the day they are for.

    `value_at_risk[i]` and `expected_shortfall[i]` (losses positive) are for day `first + i` of the series, from days
    before it only. `losses[i]` is what happened: minus the return.
    """

    model: str
    level: float
    window: int
    first: int
    losses: Array
    value_at_risk: Array
    expected_shortfall: Array

    @property
    def exceedances(self) -> npt.NDArray[np.bool_]:
        """Days on which the loss was larger than the forecast (a loss equal to it is none)."""
        return self.losses > self.value_at_risk


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one test.

    `p_value` is NaN where the test cannot be computed from these data (`note` says why); it then neither passes nor
    fails.
    """

    test: str
    statistic: float
    p_value: float
    degrees: int = 0
    note: str = ""

    def rejected(self, size: float = 0.05) -> bool | None:
        """Say whether the test rejects the model at this size; None where it could not be computed."""
        return None if np.isnan(self.p_value) else bool(self.p_value < size)
