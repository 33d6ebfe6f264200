"""`make demo`, `make demo-finance`: adapt the embedded model to a domain and say what came of it. `--fast`: fewer rows.

Run by hand: python benchmarks/demo.py [--domain finance] [--fast] [--run DIRECTORY]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

FAST = ("data.max_rows=640", "data.max_eval_rows=200")
"""Rows of the short form; of medicine about 7 % of train and 11 % of test."""


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
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - started:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU-s, "
        f"largest process {used.ru_maxrss / 1e6:.2f} GB"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
