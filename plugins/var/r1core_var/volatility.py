"""Conditional variances: exponentially weighted (RiskMetrics) and GARCH recursions, each as one linear filter.

`h_t = c_t + b h_(t-1)` is run by `scipy.signal.lfilter`, in compiled code. Variances are in squared units of the
returns.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from r1core import api
from r1core_var.checks import Array

RISKMETRICS_DECAY = 0.94  # daily decay of RiskMetrics (1996), section 5.3


def recursion(inputs: Array, memory: float, first: float) -> Array:
    """Return h with `h[0] = first` and `h[t] = inputs[t - 1] + memory * h[t - 1]`, one longer than `inputs`."""
    tail, _ = signal.lfilter([1.0], [1.0, -memory], inputs, zi=np.array([memory * first]))
    return np.concatenate([[first], tail])


def ewma_variance(returns: Array, *, decay: float = RISKMETRICS_DECAY, first: float | None = None) -> Array:
    """Return the variance forecast for each day and the day after the last, `(T + 1,)`.

    `h[t] = decay h[t - 1] + (1 - decay) r[t - 1]^2` with a mean of zero, as RiskMetrics has it. `h[0]` is `first`, or
    the backcast of arch: the first 75 squares weighted with the same decay (so the first days know a little of what
    follows them; forecasts of a rolling window use its last value only).

    Raises
    ------
    api.UserError : for a decay outside of (0, 1).
    """
    if not 0 < decay < 1:
        raise api.UserError(f"found a decay of {decay:g}, expected one between 0 and 1", fix="write 0.94")
    squares = returns * returns
    if first is None:
        weights = decay ** np.arange(min(75, len(squares)))
        first = float(weights @ squares[: len(weights)] / weights.sum())
    return recursion((1 - decay) * squares, decay, first)


def garch_variance(residuals: Array, omega: float, alpha: float, gamma: float, beta: float, before: float) -> Array:
    """Return the variance of each day and the day after the last, `(T + 1,)`, of GJR-GARCH(1,1) (`gamma` 0: GARCH).

    `h[t] = omega + (alpha + gamma [e[t-1] < 0]) e[t-1]^2 + beta h[t-1]`; `before` stands for e^2 and h of the day
    before the first.
    """
    news = omega + (alpha + gamma * (residuals < 0)) * residuals * residuals
    return recursion(news, beta, omega + (alpha + gamma / 2 + beta) * before)
