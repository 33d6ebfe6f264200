"""What the peers of the mask benchmark share: the task file, and timing along its tokens."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def task() -> dict[str, Any]:
    """`names`, `tokens` (lists of ids) and the `tokenizer` directory."""
    read: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return read


def report(compile_seconds: float | None, mask_seconds: list[float]) -> None:
    """Print the figures as the last line."""
    rows = [] if compile_seconds is None else [{"figure": "compile", "value": round(compile_seconds, 3), "unit": "s"}]
    micro = [seconds * 1e6 for seconds in mask_seconds]
    rows.append({"figure": f"mask, mean of {len(micro)}", "value": round(statistics.mean(micro), 2), "unit": "µs"})
    rows.append({"figure": "mask, p50", "value": round(statistics.median(micro), 2), "unit": "µs"})
    print(json.dumps(rows))


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
