"""How long `r1core --help`, `r1core plugins` and `r1core check medical` take, and what they import.

Every command runs as a whole process. `check medical` is also timed the first time ever: an empty cache (the model is
converted, the knowledge base built) and no bytecode of any package.

Run: python benchmarks/startup.py
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import write

REPEATS = 5
HELP, PLUGINS, CHECK = ["--help"], ["plugins"], ["check", "medical"]
TARGETS = {"r1core --help": (HELP, 0.3), "r1core plugins": (PLUGINS, 0.3), "r1core check medical": (CHECK, 5.0)}
NUMERIC = ("torch", "transformers", "peft", "spacy")
HEAVY = (*NUMERIC, "numpy", "pydantic", "r1core_umls", "r1core_clinical_rules", "r1core_smollm2")
LIST_MODULES = """
import atexit, runpy
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
runpy.run_module("r1core.cli.main", run_name="__main__")
"""


class Machine:
    """A folder with a cache and bytecode of its own, so that the first run is known to be one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Without bytecode Python compiles every module in every run; a shell that forbids it would be measured instead.
        self.env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.env |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "R1CORE_CACHE": str(folder / "cache")}

    def seconds(self, arguments: list[str]) -> tuple[float, float]:
        """Wall and CPU time of one run, in seconds."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self._run(["-m", "r1core.cli.main", *arguments])
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def imported(self, arguments: list[str]) -> set[str]:
        """Top-level modules that the command imported."""
        told = self._run(["-c", f"import sys; sys.argv = ['r1core', *{arguments!r}]\n{LIST_MODULES}"])
        return {name.partition(".")[0] for name in told.partition("MODULES")[2].split()}

    def _run(self, words: list[str]) -> str:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=self.folder, env=self.env, check=True, capture_output=True, text=True).stderr


def main() -> None:
    rows: list[dict[str, object]] = []

    def add(figure: str, value: float, unit: str = "s", target: float | None = None) -> None:
        met = None if target is None else value <= target
        told = None if target is None else f"<= {target}"
        rows.append({"figure": figure, "value": round(value, 3), "unit": unit, "target": told, "met": met})

    with tempfile.TemporaryDirectory() as name:
        machine = Machine(Path(name))
        wall, cpu = machine.seconds(CHECK)
        add("r1core check medical, the first time ever, wall", wall)
        add("r1core check medical, the first time ever, CPU", cpu)
        for label, (arguments, target) in TARGETS.items():
            machine.seconds(arguments)
            times = [machine.seconds(arguments) for _ in range(REPEATS)]
            add(f"{label}, median wall", statistics.median(wall for wall, _ in times), target=target)
            add(f"{label}, median CPU", statistics.median(cpu for _, cpu in times))
        for label, arguments, unwanted in (
            ("r1core --help", HELP, HEAVY),
            ("r1core plugins", PLUGINS, HEAVY),
            ("r1core check medical", CHECK, NUMERIC),
        ):
            found = sorted(machine.imported(arguments) & set(unwanted))
            add(f"{label}, heavy modules imported", len(found), " ".join(found) or "none", target=0)
    write("startup", rows)


if __name__ == "__main__":
    main()
