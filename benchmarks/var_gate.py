"""The risk gate at 1,000 scenarios x 20 assets on one core: time, outputs over it, gradients, and skfolio.

    python benchmarks/var_gate.py --peers-python /path/to/venv/bin/python   # a venv with skfolio==1.12.0

Times are medians of single calls that do scale, taken in rounds; the trials over the limit are counted in exact
rational arithmetic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import record
import torch
from numpy.typing import NDArray
from r1core_var.gate import gate, portfolio_risk
from r1core_var.layer import RiskGate, VaRLayer

SCENARIOS, ASSETS = 1_000, 20
ROUNDS, CALLS = 7, 200
TRIALS = 10_000
PEER = """
import json, sys
import numpy as np
from skfolio.measures import cvar, value_at_risk
data = np.load(sys.argv[1])
print(json.dumps([[value_at_risk(data["returns"] @ w, float(l)), cvar(data["returns"] @ w, float(l))]
                  for w in data["weights"] for l in data["levels"]]))
"""


def median_ms(call: Callable[[], object]) -> float:
    """Median over rounds of the median of single calls, milliseconds."""
    rounds = []
    for turn in range(ROUNDS + 1):
        times = []
        for _ in range(CALLS):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        if turn:
            rounds.append(statistics.median(times))
    return statistics.median(rounds) * 1e3


def over_the_limit(rng: np.random.Generator) -> int:
    """How many of the trials, as computed by both gates in turn, are over their limit in exact arithmetic."""
    module, over = RiskGate(level=0.9), 0
    for number in range(TRIALS):
        scenarios = rng.standard_t(3, (10, 4)) * 10.0 ** rng.integers(-12, 13)
        exposures = (rng.normal(size=4) * 10.0 ** rng.integers(-3, 4)).astype(
            (np.float64, np.float32, np.float16)[number % 3]
        )
        if number % 5 == 0:
            exposures[1], scenarios[:, 1] = -exposures[0], scenarios[:, 0] * (1 + 1e-12 * rng.normal(size=10))
        limit = float(
            np.abs(exposures).max() * np.abs(scenarios).max() * rng.choice([0.0, 1e-9, 0.1, 1.0]) * rng.random()
        )
        if number % 2:
            out = gate(exposures, scenarios, limit, level=0.9).exposures
        else:
            out = module(torch.tensor(exposures)[None], torch.tensor(scenarios), limit).exposures[0].numpy()
        held = [Fraction(float(x)) for x in out]
        worst = max(-sum(Fraction(float(c)) * x for c, x in zip(row, held, strict=True)) for row in scenarios)
        over += worst > Fraction(limit)  # at 0.9 the tail of ten scenarios is the worst one
    return over


def gradient_error(exposures: torch.Tensor, scenarios: torch.Tensor) -> float:
    """Largest relative distance of the gate's gradient from central differences, beyond the limit."""
    module = RiskGate()
    limit = float(module(exposures, scenarios, 1e9).risk) / 2
    pull = torch.linspace(-1, 1, exposures.shape[1], dtype=torch.float64)
    variable = exposures.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((module(variable, scenarios, limit).exposures @ pull).sum(), variable)
    step, worst = 1e-7, 0.0
    for asset in range(exposures.shape[1]):
        moved = torch.zeros_like(exposures)
        moved[0, asset] = step
        up, down = ((module(exposures + m, scenarios, limit).exposures @ pull).sum() for m in (moved, -moved))
        worst = max(worst, abs(float(gradient[0, asset]) - float(up - down) / (2 * step)))
    return worst / float(gradient.abs().max())


def distance_to_skfolio(python: str, rng: np.random.Generator) -> float:
    """Largest relative distance of both figures from skfolio's over many portfolios and levels."""
    returns, levels = rng.standard_t(4, (SCENARIOS, ASSETS)) / 100, np.array([0.9, 0.95, 0.975, 0.99, 0.9973])
    weights: NDArray[np.float64] = rng.dirichlet(np.ones(ASSETS), 50)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        np.savez(file, returns=returns, weights=weights, levels=levels)
        done = subprocess.run([python, "-c", PEER, str(file)], check=True, capture_output=True, text=True)
    theirs, worst = iter(json.loads(done.stdout)), 0.0
    for row in weights:
        for level in levels.tolist():
            layer = VaRLayer(level)(torch.tensor(row)[None], torch.tensor(returns))
            plain = [portfolio_risk(row, returns, measure=m, level=level) for m in ("var", "es")]  # type: ignore[arg-type]
            for ours, array, peer in zip(layer, plain, next(theirs), strict=True):
                worst = max(worst, abs(float(ours) / peer - 1), abs(array / peer - 1))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", required=True, help="python of a virtual environment with skfolio==1.12.0")
    peers = parser.parse_args().peers_python
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scenarios, exposures = rng.standard_t(4, (SCENARIOS, ASSETS)), rng.normal(size=ASSETS)
    limit = portfolio_risk(exposures, scenarios) / 2
    batch, table, module = torch.tensor(exposures)[None], torch.tensor(scenarios), RiskGate()
    variable = batch.clone().requires_grad_()
    size = f"{SCENARIOS:,} scenarios x {ASSETS} assets"
    calls = {
        "NumPy": lambda: gate(exposures, scenarios, limit),
        "torch": lambda: module(batch, table, limit),
        "torch with backward": lambda: module(variable, table, limit).exposures.square().sum().backward(),
    }
    rows: list[dict[str, object]] = []
    for name, call in calls.items():
        took = round(median_ms(call), 3)
        target = {"target": None, "met": None} if "backward" in name else {"target": 1.0, "met": took <= 1.0}
        rows.append({"figure": f"risk gate, {name}, {size}", "value": took, "unit": "ms", **target, "peer": None})
    over = over_the_limit(rng)
    rows.append({"figure": f"risk gate: outputs over the limit in {TRIALS:,} trials, exact arithmetic", "value": over,
                 "unit": "outputs", "target": 0, "met": over == 0, "peer": None})  # fmt: skip
    error = gradient_error(batch, table)
    rows.append({"figure": "risk gate: gradient against central differences", "value": float(f"{error:.1e}"),
                 "unit": "relative", "target": 1e-6, "met": error <= 1e-6, "peer": None})  # fmt: skip
    distance = distance_to_skfolio(peers, rng)
    rows.append({"figure": "VaR and ES, NumPy and torch, against skfolio", "value": float(f"{distance:.1e}"),
                 "unit": "relative", "target": 1e-9, "met": distance <= 1e-9, "peer": "skfolio 1.12.0"})  # fmt: skip
    record.write("var_gate", rows)


if __name__ == "__main__":
    main()
