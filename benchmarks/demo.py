"""`make demo`, `make demo-finance`: adapt the embedded model to a domain and say what came of it. `--fast`: fewer rows.

Run by hand: python benchmarks/demo.py [--domain finance] [--fast] [--run DIRECTORY]
For finance, what its plugins do without any model follows: each command is printed before it runs.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAST = ("data.max_rows=640", "data.max_eval_rows=200")
"""Rows of the short form; of medicine about 7 % of train and 11 % of test."""


EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "finance"
WITHOUT_A_MODEL = (
    ("events", "tag", "Norvale Industries Inc. filed for Chapter 11 on May 3, 2024, listing debts of $2.5 billion."),
    ("numeric", "run", "growth.json", "--table", "sales.csv"),
    ("align", "facts.csv", "--measure", "year,ttm", "--grid", "quarter"),
    ("align", "facts.csv", "--measure", "year,ttm", "--grid", "quarter", "--audit"),
    ("var", "estimate", "returns.csv"),
    ("var", "backtest", "returns.csv"),
)
DAYS = 1_500
"""The latest of the index, so that its backtest takes seconds."""


def without_a_model() -> int:
    """Type the verbs of the finance plugins on small files of our own and on returns of the S&P 500."""
    from r1core_finance import prices

    index = prices.long_index()
    rows = list(zip(index.dates[1:], index.returns(), strict=True))[-DAYS:]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for one in EXAMPLES.iterdir():
            (place / one.name).write_bytes(one.read_bytes())
        text = "".join(f"{day},{change:.12f}\n" for day, change in rows)
        (place / "returns.csv").write_text(f"date,return\n{text}", encoding="utf-8")
        print(f"\nwithout a model, on examples/finance and {DAYS:,} days of the S&P 500 (returns.csv):", flush=True)
        for words in WITHOUT_A_MODEL:
            print(f"\n$ r1core {shlex.join(words)}", flush=True)
            code = subprocess.run([sys.executable, "-m", "r1core.cli.main", *words], check=False, cwd=place).returncode
            if code:
                return code
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", default="medical")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--run", type=Path)
    chosen = parser.parse_args()
    command = [sys.executable, "-m", "r1core.cli.main", "adapt", chosen.domain]
    if chosen.fast:
        print(
            "FAST: 640 training rows and 200 test rows instead of the recipe's: lower and less certain figures",
            flush=True,
        )
        for assignment in (*FAST, f"run.name={chosen.domain}-fast"):
            command += ["--set", assignment]
    if chosen.run:
        command += ["--run", str(chosen.run)]
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    if not code and chosen.domain == "finance":
        code = without_a_model()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - started:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU-s, "
        f"largest process {used.ru_maxrss / 1e6:.2f} GB"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
