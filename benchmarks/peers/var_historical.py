"""99 % value-at-risk of every rolling window by Riskfolio-Lib, empyrical and quantstats; skfolio's of one sample.

Run by `var_models.py`: RETURNS.npy OUT.npz WINDOW LEVEL SAMPLE. Each library is called as its own documentation calls
it, one window at a time; the windows are cut before the clock starts. One pass in each process: quantstats keeps what
it has prepared. The first window is computed once beforehand.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import empyrical
import numpy as np
import pandas as pd
import quantstats
import riskfolio.src.RiskFunctions as riskfolio
from skfolio.measures import cvar, value_at_risk

SAMPLE_LEVELS = (0.95, 0.975, 0.99)


def passed(call: Callable[[Any], float], windows: Sequence[Any]) -> tuple[list[float], float]:
    """Return what each window gives, and the CPU seconds of all."""
    call(windows[0])
    start = time.process_time()
    found = [call(window) for window in windows]
    return found, time.process_time() - start


def main() -> None:
    file, out, window, level, sample = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    returns = np.load(file)
    tail = round(
        1 - level, 12
    )  # 0.01 as a user writes it: 1 - 0.99 is above it, and takes Riskfolio-Lib a rank further
    arrays = list(np.lib.stride_tricks.sliding_window_view(returns, window))
    series = [pd.Series(one) for one in arrays]
    calls: dict[str, tuple[Callable[[Any], float], Sequence[Any]]] = {
        "riskfolio-lib": (lambda one: riskfolio.VaR_Hist(one, alpha=tail), arrays),
        "empyrical-reloaded": (lambda one: empyrical.value_at_risk(one, cutoff=tail), arrays),
        "quantstats": (lambda one: quantstats.stats.value_at_risk(one, confidence=level), series),
    }
    made = {name: passed(call, windows) for name, (call, windows) in calls.items()}
    few = returns[:sample]
    np.savez(
        out,
        names=[f"{name} {version(name)}" for name in made],
        values=[values for values, _ in made.values()],
        seconds=[seconds for _, seconds in made.values()],
        skfolio=[[value_at_risk(few, beta=q), cvar(few, beta=q)] for q in SAMPLE_LEVELS],
    )


if __name__ == "__main__":
    main()
