"""What runs fastest on this machine, by a short probe; the choice is recorded and never flips on a rerun.

bf16 matmul is about four times as fast as fp32 on CPUs with avx512_bf16 and many times slower elsewhere, so no rule
by name replaces measuring. On a GPU that has it, bf16 is taken without a probe.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch

from r1core.model.limits import usable_cores
from r1core.recipe.schema import Model

PROBE_SHAPE = (256, 576, 1536)
"""(tokens, width, feed-forward width) of the probed product: a small model's feed-forward on a short-row batch."""


@dataclass(frozen=True, slots=True)
class Compute:
    """How this run computes.

    `threads` : of a process that works alone. `processes` : how many share long work, each with one thread.
    `gflops` : the probed matmul rate in GFLOP/s of one thread, 0 where nothing was probed.
    """

    device: str
    precision: str
    threads: int
    gflops: float
    processes: int = 1

    def as_json(self) -> dict[str, object]:
        """For the manifest."""
        return asdict(self)


def choose(model: Model) -> Compute:
    """Resolve `auto` precision, `threads = 0` and `processes = 0`."""
    asked: str = model.precision
    if torch.cuda.is_available():
        return Compute("cuda", "bf16" if asked == "auto" else asked, model.threads or 1, 0.0)
    rates: dict[str, float] = {"fp32": _matmul_rate(torch.float32), "bf16": _matmul_rate(torch.bfloat16)}
    precision = max(rates, key=rates.__getitem__) if asked == "auto" else asked
    cores = usable_cores()
    threads, processes = model.threads or cores, model.processes or (1 if model.threads > 1 else cores)
    return Compute("cpu", precision, threads, round(rates[precision], 1), processes)


def _matmul_rate(dtype: torch.dtype, repeats: int = 7) -> float:
    """GFLOP/s of one thread, the best of a few repeats (the least disturbed)."""
    tokens, width, inner = PROBE_SHAPE
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left, right = torch.ones(tokens, width, dtype=dtype), torch.ones(inner, width, dtype=dtype)
        best = float("inf")
        for _ in range(repeats):
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2 * tokens * width * inner / best / 1e9
