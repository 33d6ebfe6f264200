"""Where every benchmark writes its figures: `benchmarks/results/<name>.json`."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
FIELDS = ("figure", "value", "unit", "target", "met", "peer", "machine", "date")


def machine() -> str:
    """Return processor, usable CPUs and interpreter in one line."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        processor = next(lines, f":{processor}").split(":", 1)[1].strip()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cpus} CPUs, Python {platform.python_version()}"


def write(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write the rows of one benchmark, print them, and return the file.

    Each row gives `figure`, `value`, `unit`; `target`, `met` and `peer` are None where there is none. Machine and
    date (ISO 8601, UTC) are added here where a row does not name its own.

    Raises
    ------
    ValueError : for a key outside of `FIELDS`.
    """
    stamp = {"machine": machine(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    table = []
    for row in rows:
        unknown = set(row) - set(FIELDS)
        if unknown:
            raise ValueError(f"{name}: unknown keys {sorted(unknown)}")
        table.append({field: {**stamp, **row}.get(field) for field in FIELDS})
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in table:
        verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]  # type: ignore[index]
        print(f"{row['figure']}: {row['value']} {row['unit']} (target {row['target']}) {verdict}")
    return path
