"""Minimum-CVaR and mean-CVaR: solve time at equal objective against skfolio, and a walk-forward beside equal weight.

    python benchmarks/var_portfolio.py --peers-python /path/to/venv/bin/python   # a venv with skfolio==1.12.0

Data: daily prices of 20 stocks, 1990 to 2022, in skfolio's wheel, which is read and not imported. They are names that
lasted: levels of return say nothing, comparisons between portfolios of the same stocks do. Both sides solve the same
returns on one thread, in rounds that alternate; skfolio (cvxpy and Clarabel) is timed for the whole fit and, apart, as
Clarabel reports its own time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import record
from numpy.typing import NDArray
from r1core_var.portfolio import FIGURES, Portfolio, equal_weight, figures, mean_cvar, minimum_cvar, walk_forward

LEVEL, AVERSION = 0.95, 0.1
SIZES = (1_000, 2_000, 8_312)
ROUNDS, CALLS = 5, 3
TARGET, NEAR = 0.65, 2e-4  # of the solve time; the objectives' relative distance
WINDOW, EVERY, COST = 1_000, 21, 0.001
PEER = """
import json, sys, time
import numpy as np
from skfolio import RiskMeasure
from skfolio.optimization import MeanRisk, ObjectiveFunction
returns, level, aversion, calls = np.load(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
utility = dict(objective_function=ObjectiveFunction.MAXIMIZE_UTILITY, risk_aversion=aversion)
kinds = {"minimum-CVaR": {}, "mean-CVaR": utility}
out = {}
for name, options in kinds.items():
    fit, solver = [], []
    for call in range(calls + 1):
        model = MeanRisk(risk_measure=RiskMeasure.CVAR, cvar_beta=level, save_problem=True, **options)
        begin = time.perf_counter()
        model.fit(returns)
        if call:
            fit.append(time.perf_counter() - begin)
            solver.append(model.problem_.solver_stats.solve_time)
    out[name] = {"fit": float(np.median(fit)), "solver": float(np.median(solver)), "weights": model.weights_.tolist()}
print(json.dumps(out))
"""
SOLVERS: dict[str, Callable[[NDArray[np.float64]], Portfolio]] = {
    "minimum-CVaR": lambda returns: minimum_cvar(returns, level=LEVEL),
    "mean-CVaR": lambda returns: mean_cvar(returns, level=LEVEL, risk_aversion=AVERSION),
}


def stocks() -> NDArray[np.float64]:
    """Daily returns (S, N) of the wheel's prices."""
    import pandas as pd

    spec = importlib.util.find_spec("skfolio")
    if spec is None or spec.origin is None:
        raise SystemExit("skfolio's wheel is not there: pip install --no-deps skfolio==1.12.0")
    prices = pd.read_csv(Path(spec.origin).parent / "datasets" / "data" / "sp500_dataset.csv.gz", index_col=0)
    return prices.pct_change().iloc[1:].to_numpy()


def objective(name: str, weights: NDArray[np.float64], returns: NDArray[np.float64]) -> float:
    """What the programme minimises, from the weights, by sorting all losses."""
    losses = np.sort(-(returns @ weights))[::-1]
    mass = (1 - LEVEL) * len(losses)
    whole = int(mass + 1e-9)
    risk = float((losses[:whole].sum() + (mass - whole) * losses[whole]) / mass)
    return risk if name == "minimum-CVaR" else risk - float(returns.mean(axis=0) @ weights) / AVERSION


def race(python: str, returns: NDArray[np.float64]) -> list[dict[str, object]]:
    """Rows of one size: times of both sides, their ratio, the distance of the objectives."""
    ours: dict[str, list[float]] = {name: [] for name in SOLVERS}
    fits: dict[str, list[float]] = {name: [] for name in SOLVERS}
    alone: dict[str, list[float]] = {name: [] for name in SOLVERS}
    distance = dict.fromkeys(SOLVERS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "returns.npy"
        np.save(file, returns)
        for _ in range(ROUNDS):
            command = [python, "-c", PEER, str(file), str(LEVEL), str(AVERSION), str(CALLS)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            theirs = json.loads(done.stdout)
            for name, solve in SOLVERS.items():
                times = []
                for call in range(CALLS + 1):
                    begin = time.perf_counter()
                    made = solve(returns)
                    if call:
                        times.append(time.perf_counter() - begin)
                ours[name].append(statistics.median(times))
                fits[name].append(theirs[name]["fit"])
                alone[name].append(theirs[name]["solver"])
                mine = objective(name, made.weights, returns)
                peer = objective(name, np.array(theirs[name]["weights"]), returns)
                distance[name] = max(distance[name], abs(mine - peer) / abs(peer), key=abs)
    rows: list[dict[str, object]] = []
    for name in SOLVERS:
        what = f"{name}, {len(returns):,} days x {returns.shape[1]} assets"
        against = {"peer": "skfolio 1.12.0"}
        for told, peer in (("fit", fits[name]), ("Clarabel's own time", alone[name])):
            ratio = round(statistics.median(a / b for a, b in zip(ours[name], peer, strict=True)), 3)
            rows.append({"figure": f"{what}: solve time over skfolio's ({told})", "value": ratio, "unit": "ratio",
                         "target": TARGET, "met": ratio <= TARGET, **against})  # fmt: skip
        took = round(statistics.median(ours[name]) * 1e3, 1)
        rows.append(
            {"figure": f"{what}: solve time", "value": took, "unit": "ms", "target": None, "met": None, "peer": None}
        )
        far = float(f"{distance[name]:.1e}")
        rows.append({"figure": f"{what}: objective against skfolio's", "value": far, "unit": "relative",
                     "target": NEAR, "met": far <= NEAR, **against})  # fmt: skip
    return rows


def tested(returns: NDArray[np.float64]) -> list[dict[str, object]]:
    """Rows of the walk-forward: figures with standard errors, and the paired differences from equal weight."""
    strategies: dict[str, Callable[[NDArray[np.float64]], Portfolio]] = {
        "equal weight": lambda past: equal_weight(past, level=LEVEL),
        "minimum-CVaR": SOLVERS["minimum-CVaR"],
        "minimum-CVaR at equal weight's mean": lambda past: minimum_cvar(
            past, level=LEVEL, minimum_return=float(past.mean())
        ),
        f"mean-CVaR, risk aversion {AVERSION}": SOLVERS["mean-CVaR"],
    }
    walked = walk_forward(returns, strategies, window=WINDOW, every=EVERY, cost=COST)
    each, apart = (figures(walked, level=LEVEL, against=against) for against in (None, "equal weight"))
    rows: list[dict[str, object]] = []
    for name, one in walked.items():
        for what in FIGURES:
            for told, table in (("", each), (", less equal weight's", apart)):
                if table is apart and name == "equal weight":
                    continue
                figure = table[name][what]
                value, unit = round(100 * figure.value, 3), f"% ± {100 * figure.error:.3f}"
                rows.append({"figure": f"walk-forward, {name}: {what}{told}", "value": value, "unit": unit})
        traded = round(100 * one.turnover, 1)
        rows.append({"figure": f"walk-forward, {name}: traded at a refit", "value": traded, "unit": "% of it"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", required=True, help="python of a virtual environment with skfolio==1.12.0")
    peers = parser.parse_args().peers_python
    returns = stocks()
    rows = [row for size in SIZES for row in race(peers, returns[-size:])]
    record.write("var_portfolio", [*rows, *tested(returns)])


if __name__ == "__main__":
    main()
