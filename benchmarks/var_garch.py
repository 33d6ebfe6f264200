"""GARCH(1,1) refitted every day: all 1,000-day windows of the S&P 500 at once, against arch window by window.

    python benchmarks/var_garch.py [--peers-python PATH] [--every N]

arch runs on the same windows, in rounds that alternate with ours: each round fits a share of the windows, all rounds
together each window once (with `--every N` each N-th), and the seconds of a round are scaled to all windows. `PATH` is
the interpreter of an environment of its own (benchmarks/peers/requirements-var.txt); without it arch is taken from this
one. Seconds are of the processor, all threads; arch runs on one. A window counts as reached where our forecast
volatility and every parameter lie within 1 % of arch's (1e-5 for a parameter below 0.001), or where our log-likelihood
is better by more than 1e-6.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

WINDOW, TARGET_SECONDS, ROUNDS = 1000, 8.0, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, help="the interpreter of an environment that has arch")
    parser.add_argument("--every", type=int, default=1, help="arch fits each N-th window only")
    args = parser.parse_args()
    from r1core_var.garch_windows import fit_windows
    from record import write
    from var_backtest import indices
    from var_peers import told

    returns = indices()["S&P 500"]
    count = len(returns) - WINDOW + 1
    asked = np.arange(0, count, args.every)
    theirs = np.empty((len(asked), 6))
    times, costs = [], []
    for part in range(ROUNDS):
        start = time.process_time()
        fits = fit_windows(returns, WINDOW)
        times.append(time.process_time() - start)
        found = told(
            args.peers_python or Path(sys.executable),
            "var_arch.py",
            returns,
            WINDOW,
            part * args.every,
            ROUNDS * args.every,
        )
        theirs[part::ROUNDS] = found["fits"]
        costs.append(float(found["seconds"]) / len(found["fits"]) * count)
    ours, cost = statistics.median(times), statistics.median(costs)
    ratio = statistics.median(his / mine for his, mine in zip(costs, times, strict=True))
    where = "in an environment of its own" if args.peers_python else "in the environment of ours"
    peer = f"{found['name']} {where}: {cost:.1f} CPU-s, {ratio:.0f} times ours; medians of {ROUNDS} alternating rounds"
    peer += f", each with 1/{ROUNDS} of {len(asked)} windows for arch, its seconds scaled to {count}"
    parameters = np.stack([fits.mu, fits.omega, fits.alpha, fits.beta], axis=1)[asked]
    gaps = np.abs(parameters - theirs[:, :4]) / np.maximum(np.abs(theirs[:, :4]), 1e-3)
    volatility = np.abs(np.sqrt(fits.next_variance[asked] / theirs[:, 5]) - 1)
    gain = fits.loglikelihood[asked] - theirs[:, 4]
    reached = ((gaps.max(axis=1) <= 0.01) & (volatility <= 0.01)) | (gain > 1e-6)
    label = f"GARCH(1,1) in {count} windows of {WINDOW}"
    compared = f"GARCH(1,1) in {len(asked)} windows of {WINDOW}"
    write(
        "var_garch",
        [
            {
                "figure": f"{label}, daily refit, one core",
                "value": round(ours, 2),
                "unit": "CPU-s",
                "target": f"<= {TARGET_SECONDS:g}",
                "met": ours <= TARGET_SECONDS,
                "peer": peer,
            },
            {
                "figure": f"{compared}: within 1 % of arch, or better likelihood",
                "value": round(float(reached.mean()), 5),
                "unit": "share",
                "target": ">= 0.99",
                "met": bool(reached.mean() >= 0.99),
            },
            {"figure": f"{label}: converged", "value": float(fits.converged.mean()), "unit": "share"},
            {
                "figure": f"{compared}: lowest gain of log-likelihood over arch",
                "value": round(float(gain.min()), 6),
                "unit": "nats",
            },
            {
                "figure": f"{compared}: largest gain of log-likelihood over arch",
                "value": round(float(gain.max()), 6),
                "unit": "nats",
            },
            {
                "figure": f"{compared}: largest gap of forecast volatility",
                "value": round(float(volatility.max()), 6),
                "unit": "fraction",
            },
        ],
    )


if __name__ == "__main__":
    main()
