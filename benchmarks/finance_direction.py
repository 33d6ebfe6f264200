"""Direction of the S&P 500 on the next day, walk-forward, beside "always up" and a logistic regression.

Run: python benchmarks/finance_direction.py [--from 2000] [--years 2] [--rows 2000] [--runs DIR] [--jobs 1] [--set K=V]
Every `--years` years the embedded model is adapted anew by `r1core adapt finance`, as a user does, on the `--rows` days
before, and asked about each day of the years that follow; nothing of them was seen. The logistic regression gets the
same changes, standardised on the same days. There is no target: the figure says what the data carries, and the standard
error of the difference from "always up" (paired by day) says how much of it is noise.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adapting
import numpy as np
from r1core_finance import direction, prices
from record import write

RECIPE = """
[data]
kind = "choice"
choices = ["up", "down"]
prompt = "{text}"

[data.files]
train = "train.csv"
val = "val.csv"
test = "test.csv"

[data.columns]
id = "id"

[evaluate]
baselines = false
base_model = false

[report]
demo_prompt = ""
"""
Row = tuple[datetime.date, str, str]


def adapted(folder: Path, train: Sequence[Row], test: Sequence[Row], sets: Sequence[str]) -> list[str]:
    """What the model that was adapted on `train` says of each day of `test`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train[:-100]), ("val", train[-100:]), ("test", test)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(("id", "text", "answer"))
            table.writerows((day.isoformat(), question, answer) for day, question, answer in rows)
    said = adapting.answers(adapting.adapt(folder, "finance", RECIPE, sets), "constrained")
    return [said[day.isoformat()] for day, _, _ in test]


def logistic(seen: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> list[str]:
    """scikit-learn's logistic regression on the changes themselves."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = seen.mean(0), seen.std(0)
    fitted = LogisticRegression().fit((seen - mean) / spread, labels)
    return list(fitted.predict((asked - mean) / spread))


def compared(right: np.ndarray, up: np.ndarray) -> tuple[float, float, float]:
    """Accuracy in percent, its difference from "always up" in points, and the standard error of that difference."""
    apart = right.astype(float) - up
    return 100 * right.mean(), 100 * apart.mean(), 100 * apart.std(ddof=1) / math.sqrt(len(apart))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=2000)
    parser.add_argument("--years", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=Path, default=Path("runs-direction"))
    parser.add_argument("--jobs", type=int, default=1, help="models that are adapted side by side")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    chosen = parser.parse_args()
    series = prices.long_index()
    rows = list(direction.asked(series))
    changes = np.array(series.returns())
    shown = np.lib.stride_tricks.sliding_window_view(changes, direction.DAYS)[: len(rows)]
    labels = np.array([answer for _, _, answer in rows])
    years = np.array([day.year for day, _, _ in rows])
    asked = np.flatnonzero(years >= chosen.first)

    def fold(first: int) -> tuple[list[str], list[str]]:
        now = np.flatnonzero((years >= first) & (years < first + chosen.years))
        before = np.arange(max(0, now[0] - chosen.rows), now[0])
        seen, part = [rows[at] for at in before], [rows[at] for at in now]
        said = adapted(chosen.runs / str(first), seen, part, chosen.sets)
        print(first, len(now), (np.array(said) == labels[now]).mean(), flush=True)
        return said, logistic(shown[before], labels[before], shown[now])

    with ThreadPoolExecutor(chosen.jobs) as pool:
        folds = list(pool.map(fold, range(chosen.first, int(years[-1]) + 1, chosen.years)))
    ours, theirs = ([answer for each in side for answer in each] for side in zip(*folds, strict=True))
    truth = labels[asked]
    up = (truth == "up").astype(float)
    base = 100 * up.mean()
    error = 100 * math.sqrt(up.mean() * (1 - up.mean()) / len(up))
    days = f"S&P 500, {len(up)} days from {rows[asked[0]][0]}"
    table = [
        {"figure": f"always up right, {days} (standard error {error:.2f})", "value": round(base, 2), "unit": "%",
         "target": None, "met": None, "peer": None}
    ]  # fmt: skip
    for name, said in (("logistic regression", theirs), ("adapted model, walk-forward", ours)):
        share, apart, spread = compared(np.array(said) == truth, up)
        figure = f"{name} right; {apart:+.2f} points from always up, standard error {spread:.2f}"
        table.append({"figure": figure, "value": round(share, 2), "unit": "%", "target": None, "met": None,
                      "peer": round(base, 2)})  # fmt: skip
    write("finance_direction", table)


if __name__ == "__main__":
    main()
