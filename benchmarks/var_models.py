"""Rolling historical value-at-risk, and how near the figures of `plugins/var` are to other libraries'.

    python benchmarks/var_models.py [--peers-python PATH]

5,030 daily returns of the S&P 500 (from the wheel of arch). The peers run in an environment of their own, on the same
machine and in the same run: those of empyrical, quantstats and Riskfolio-Lib that it has. Seconds are of the
processor, medians of several rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WINDOW, LEVEL = 1000, 0.99
SAMPLE, LEVELS = (
    1003,
    (0.95, 0.975, 0.99),
)  # 1,003: no rank falls on a boundary, where conventions may differ by rounding


def seconds(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def peers(file: str) -> None:
    """Run in the peers' environment: print the seconds of each library that is there, as JSON."""
    returns = np.load(file)
    windows = [returns[at : at + WINDOW] for at in range(len(returns) - WINDOW + 1)]
    found: dict[str, float] = {}
    if importlib.util.find_spec("empyrical"):
        import empyrical

        found["empyrical"] = seconds(lambda: [empyrical.value_at_risk(one, 1 - LEVEL) for one in windows], 3)
    if importlib.util.find_spec("riskfolio"):
        import riskfolio.src.RiskFunctions as functions

        found["Riskfolio-Lib"] = seconds(lambda: [functions.VaR_Hist(one, 1 - LEVEL) for one in windows], 3)
    if importlib.util.find_spec("quantstats"):
        import pandas as pd
        import quantstats

        series = [pd.Series(one) for one in windows]
        found["quantstats (normal)"] = seconds(
            lambda: [quantstats.stats.value_at_risk(one, confidence=LEVEL) for one in series], 1
        )
    print(json.dumps({"seconds": found, "skfolio": _skfolio(-returns[:SAMPLE])}))


def _skfolio(losses: np.ndarray) -> list[list[float]]:
    """Value-at-risk and expected shortfall of skfolio at three levels; nothing where it is not there."""
    if not importlib.util.find_spec("skfolio"):
        return []
    from skfolio.measures import cvar, value_at_risk

    return [[float(value_at_risk(-losses, beta=q)), float(cvar(-losses, beta=q))] for q in LEVELS]


def accuracy(returns: np.ndarray, skfolio: list[list[float]]) -> list[dict[str, object]]:
    """Largest differences to NumPy, SciPy and skfolio."""
    from r1core_var import quantiles
    from r1core_var.distributions import SkewedT, location_scale
    from r1core_var.parametric import normal_risk
    from scipy import stats

    sample = -returns[:SAMPLE]
    convention = max(
        abs(quantiles.value_at_risk(sample, level, name) - np.quantile(sample, level, method=name))
        for level in LEVELS
        for name in ("inverted_cdf", "linear", "hazen", "weibull", "median_unbiased", "normal_unbiased")
    )
    normal = abs(normal_risk(0.05, 1.2, 0.99).value_at_risk - (stats.norm.ppf(0.99) * 1.2 - 0.05))
    nu = 5.0
    var, es = location_scale(SkewedT(nu), 0.0, 1.0, 0.975)
    q, scale = stats.t.ppf(0.975, nu), np.sqrt((nu - 2) / nu)
    student = max(abs(var - q * scale), abs(es - scale * stats.t.pdf(q, nu) / 0.025 * (nu + q * q) / (nu - 1)))
    rows: list[dict[str, object]] = [
        _near("historical value-at-risk, six conventions, to NumPy", convention),
        _near("normal value-at-risk, to SciPy", normal),
        _near("Student t value-at-risk and expected shortfall, to SciPy", student),
    ]
    if skfolio:
        ours = [[quantiles.value_at_risk(sample, q), quantiles.expected_shortfall(sample, q)] for q in LEVELS]
        gap = float(np.abs(np.subtract(ours, skfolio)).max())
        rows.append(_near("historical value-at-risk and expected shortfall, to skfolio", gap))
    return rows


def _near(figure: str, gap: float) -> dict[str, object]:
    return {
        "figure": figure,
        "value": float(f"{gap:.2g}"),
        "unit": "largest difference",
        "target": "<= 1e-9",
        "met": bool(gap <= 1e-9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--as-peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_peer:
        return peers(args.as_peer)
    from r1core_var.sliding import rolling_tail
    from record import write
    from var_backtest import indices

    returns = indices()["S&P 500"]
    losses = -returns
    ours = seconds(lambda: rolling_tail(losses, WINDOW, LEVEL), 21)
    each = np.lib.stride_tricks.sliding_window_view(losses, WINDOW)
    others = {
        "NumPy, one quantile call over all windows": seconds(
            lambda: np.quantile(each, LEVEL, axis=1, method="inverted_cdf"), 5
        ),
        "NumPy, a loop over windows": seconds(
            lambda: [np.quantile(one, LEVEL, method="inverted_cdf") for one in each], 3
        ),
    }
    skfolio: list[list[float]] = []
    if args.peers_python:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "returns.npy"
            np.save(file, returns)
            command = [args.peers_python, __file__, "--as-peer", file]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        told_by_peers = json.loads(done.stdout.splitlines()[-1])
        others |= told_by_peers["seconds"]
        skfolio = told_by_peers["skfolio"]
    told = "; ".join(f"{name}: {value:.3f} s, {value / ours:.0f} times ours" for name, value in others.items())
    rows: list[dict[str, object]] = [
        {
            "figure": f"rolling {LEVEL:.0%} historical VaR and ES, {len(returns)} days, window {WINDOW}",
            "value": round(ours, 4),
            "unit": "CPU-s",
            "target": "<= 0.02",
            "met": ours <= 0.02,
            "peer": told,
        }
    ]
    write("var_models", rows + accuracy(returns, skfolio))


if __name__ == "__main__":
    main()
