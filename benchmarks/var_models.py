"""Rolling historical value-at-risk, and how near the figures of `plugins/var` are to other libraries'.

    python benchmarks/var_models.py [--peers-python PATH]

5,030 daily returns of the S&P 500 (from the wheel of arch). Riskfolio-Lib, empyrical, quantstats and skfolio run in an
environment of their own (benchmarks/peers/requirements-var.txt), on the same machine, in rounds that alternate with
ours. Seconds are of the processor, all threads (peers run on one), medians of the rounds, as are ratios. Ours includes
the expected shortfall, theirs do not. Each peer's figures are compared with ours in its own convention; without
`--peers-python` there is only NumPy to compare with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WINDOW, LEVEL, ROUNDS = 1000, 0.99, 3
SAMPLE, LEVELS = (
    1003,
    (0.95, 0.975, 0.99),
)  # 1,003: no rank falls on a boundary, where conventions may differ by rounding


def seconds(call: Callable[[], object], calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def race(returns: np.ndarray, python: Path | None) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """Seconds of each side by round, "ours" among them, and what the peers found (nothing without an interpreter)."""
    from r1core_var.sliding import rolling_tail
    from var_peers import told

    losses = -returns
    each = np.lib.stride_tricks.sliding_window_view(losses, WINDOW)
    rounds: list[dict[str, float]] = []
    found: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        took = {
            "ours": seconds(lambda: rolling_tail(losses, WINDOW, LEVEL), 21),
            f"NumPy {np.__version__}, one quantile call over all windows": seconds(
                lambda: np.quantile(each, LEVEL, axis=1, method="inverted_cdf"), 3
            ),
            f"NumPy {np.__version__}, a loop over windows": seconds(
                lambda: [np.quantile(one, LEVEL, method="inverted_cdf") for one in each], 1
            ),
        }
        if python:
            found = told(python, "var_historical.py", returns, WINDOW, LEVEL, SAMPLE)
            took |= dict(zip(found["names"].tolist(), found["seconds"].tolist(), strict=True))
        rounds.append(took)
    return rounds, found


def agreement(returns: np.ndarray, found: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """Largest differences of the rolling figures to each peer, ours in the convention of that peer."""
    from r1core_var.parametric import normal
    from r1core_var.sliding import rolling_tail

    losses = -returns
    default, _ = rolling_tail(losses, WINDOW, LEVEL)
    above = LEVEL + 0.1 / WINDOW  # the next rank: the quantile function's limit from above
    windows = np.lib.stride_tricks.sliding_window_view(returns, WINDOW)
    conventions = {
        "riskfolio-lib": (
            "10th worst of 1,000, inverted_cdf of returns, where our default is of losses, the 11th",
            1,
            rolling_tail(losses, WINDOW, above)[0],
        ),
        "empyrical-reloaded": (
            "linear between the 10th and the 11th worst, where our default is the 11th; sign of a return",
            -1,
            rolling_tail(losses, WINDOW, LEVEL, "linear")[0],
        ),
        "quantstats": (
            "has no historical one: normal with mean and standard deviation of the window; sign of a return",
            -1,
            np.array([normal(one, LEVEL).value_at_risk for one in windows]),
        ),
    }
    rows = []
    for name, values in zip(found["names"].tolist(), found["values"], strict=True):
        convention, sign, ours = conventions[name.split()[0]]
        label = f"rolling {LEVEL:.0%} VaR, {len(ours)} windows, to {name} ({convention})"
        apart = float(np.abs(sign * values - default).max())
        peer = f"{name}: up to {apart:.2g} percentage points from our default, for its convention"
        rows.append(_near(label, float(np.abs(sign * values - ours).max())) | {"peer": peer})
    return rows


def accuracy(returns: np.ndarray, skfolio: np.ndarray | None) -> list[dict[str, object]]:
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
    if skfolio is not None:
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
    parser.add_argument("--peers-python", type=Path, help="the interpreter of an environment that has the peers")
    python = parser.parse_args().peers_python
    from record import write
    from var_backtest import indices

    returns = indices()["S&P 500"]
    rounds, found = race(returns, python)
    ours = statistics.median(one["ours"] for one in rounds)
    against = []
    for name in rounds[0]:
        if name != "ours":
            took = statistics.median(one[name] for one in rounds)
            against.append(f"{name}: {took:.3f} s, {statistics.median(o[name] / o['ours'] for o in rounds):.0f} times")
    rows: list[dict[str, object]] = [
        {
            "figure": f"rolling {LEVEL:.0%} historical VaR and ES, {len(returns)} days, window {WINDOW}",
            "value": round(ours, 4),
            "unit": "CPU-s",
            "target": "<= 0.02",
            "met": ours <= 0.02,
            "peer": f"medians of {ROUNDS} alternating rounds, times ours: " + "; ".join(against),
        }
    ]
    rows += agreement(returns, found) if found else []
    write("var_models", rows + accuracy(returns, found.get("skfolio")))


if __name__ == "__main__":
    main()
