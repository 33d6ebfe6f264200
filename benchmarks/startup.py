"""How long `r1core --help`, `r1core plugins` and `r1core check medical` take, and what the first two import.

Run: python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import write

REPEATS = 5
COMMANDS = {
    "r1core --help": (["--help"], 0.3),
    "r1core plugins": (["plugins"], 0.3),
    "r1core check medical": (["check", "medical"], 5.0),
}
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "spacy",
    "numpy",
    "pydantic",
    "r1core_umls",
    "r1core_clinical_rules",
    "r1core_smollm2",
)
LIST_MODULES = """
import atexit, runpy
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
runpy.run_module("r1core.cli.main", run_name="__main__")
"""


def seconds(arguments: list[str], folder: Path) -> float:
    """Wall time of one run as a whole process, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "r1core.cli.main", *arguments], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def imported(arguments: list[str], folder: Path) -> list[str]:
    """Heavy modules that the command imported."""
    code = f"import sys; sys.argv = ['r1core', *{arguments!r}]\n{LIST_MODULES}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    modules = done.stderr.partition("MODULES")[2].split()
    return [name for name in HEAVY if name in modules]


def main() -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, (arguments, target) in COMMANDS.items():
            seconds(arguments, folder)  # the first run compiles and converts
            median = statistics.median(seconds(arguments, folder) for _ in range(REPEATS))
            rows.append(
                {
                    "figure": f"{label}, median wall",
                    "value": round(median, 3),
                    "unit": "s",
                    "target": f"<= {target}",
                    "met": median <= target,
                }
            )
        for label in ("r1core --help", "r1core plugins"):
            found = imported(COMMANDS[label][0], folder)
            rows.append(
                {
                    "figure": f"{label}, heavy modules imported",
                    "value": len(found),
                    "unit": " ".join(found) or "none",
                    "target": "0",
                    "met": not found,
                }
            )
    write("startup", rows)


if __name__ == "__main__":
    main()
