"""Time of a step on this machine's CPU, from two short probes in numpy: a product, and copying memory.

Times add up: products at the probed speed, values that pass through memory, weights that are read, launches. The
shares below were fitted to eight runs of the real trainer on random rows, whose CPU seconds they meet within 10 %:
135M, 1B (two blocks) and small shapes, 50 to 800 tokens a pass (one core of an AMD EPYC, Zen 4, fp32, torch 2.13,
2026-11-26).

Not covered: bf16 where the processor has it, several threads of one process, other work on the same cores (the probes
are timed in CPU seconds, the best of several, so they tell what an idle core does).
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r1core.forecast.work import Work
from r1core.model.limits import usable_cores, worthwhile
from r1core.recipe.schema import Model

PROBE_SHAPE = (256, 576, 1536)
"""(tokens, width, feed-forward width) of the product that is timed, as in `r1core.model.probe`."""
COPIED_BYTES = 32_000_000
"""Beyond the caches that one core has to itself."""
PASSES = 3.2
"""Times that a value passes through memory uncompiled, for each time that it must; over the probed copying."""
STREAMED = 0.3
"""Share of the probed copying at which a product of few rows reads its weights."""
LAUNCH_SECONDS = 9e-6
"""Of one operation of torch; uncompiled there are about twice as many as are counted for a compiled block."""
BYTES_UPDATED = 32
"""That the optimiser moves a weight: its value, gradient and two moments, read and written; the gradient's norm."""
UNEVEN = 1.08
"""Time of a step over the processes' mean: all wait for the slowest and for the sum of gradients."""
START_SECONDS = 9.0
"""Until the first step: libraries, weights, the check of packing."""


@dataclass(frozen=True, slots=True)
class Core:
    """What one core does: FLOP/s of fp32 products, bytes/s of copying (read and written both counted)."""

    speed: float
    bandwidth: float


def probe() -> Core:
    """Probe this machine; takes about a tenth of a second."""
    return Core(matmul_speed(), copy_speed())


def seconds_of(work: Work, core: Core) -> float:
    """CPU seconds of one process for one step, in fp32."""
    products = (work.flop + work.flop_fp32) / core.speed
    moved = (4 * PASSES * work.moved + BYTES_UPDATED * work.updated) / core.bandwidth
    return products + moved + 4 * work.weights / (STREAMED * core.bandwidth) + LAUNCH_SECONDS * 2 * work.launches


def processes_of(model: Model, *, parameters: int, tokens: float, batch_size: int, private: bool) -> int:
    """Processes that training would share its rows among (`r1core.train.stage`)."""
    if private or sys.platform != "linux":
        return 1
    asked = model.processes or (1 if model.threads > 1 else usable_cores())
    return worthwhile(asked, model.processes, parameters=parameters, tokens=int(tokens), most=batch_size)


def has_bf16() -> bool:
    """Whether this processor says that it multiplies bf16, which the run's own probe may then find the faster."""
    place = Path("/proc/cpuinfo")
    told = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    return "avx512_bf16" in told or "amx_bf16" in told


def matmul_speed(repeats: int = 15) -> float:
    """FLOP/s of one thread in fp32, the best of a few short products.

    Timed in CPU seconds of the process, so that a library which spreads the product over threads counts as one.
    """
    tokens, width, inner = PROBE_SHAPE
    left, right = np.ones((tokens, width), np.float32), np.ones((width, inner), np.float32)
    best = math.inf
    for _ in range(repeats):
        started = time.process_time()
        left @ right
        best = min(best, time.process_time() - started)
    return 2 * tokens * width * inner / best


def copy_speed(repeats: int = 5) -> float:
    """Bytes/s, read and written both counted, of one core copying what fits in no cache of its own; the best."""
    source = np.ones(COPIED_BYTES // 4, np.float32)
    target = np.empty_like(source)
    best = math.inf
    for _ in range(repeats):
        started = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - started)
    return 2 * source.nbytes / best
