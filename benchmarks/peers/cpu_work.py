"""One and the same training on a CPU for r1core and TRL: token rows from a file, LoRA settings, what is measured.

Imports nothing of r1core, so that it runs in the peer's own environment. The rows are trained on in the order in which
they stand, `batch` of them a step, prompts masked out of the loss; the first steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workload import ALPHA, RANK, WARM, Clock

__all__ = ["ALPHA", "RANK", "RATE", "Clock", "Work", "measured", "work_from"]

RATE = 2e-4


@dataclass(frozen=True)
class Work:
    """Rows of (prompt, response) token ids and how they are trained on; `packing` is the system's own word."""

    model: str
    precision: str
    rows: Sequence[tuple[list[int], list[int]]]
    batch: int
    steps: int
    attention: str
    packing: str
    threads: int
    processes: int
    checkpointing: bool

    @property
    def all_steps(self) -> int:
        """Steps with the untimed ones."""
        return self.steps + WARM


def work_from(arguments: Sequence[str]) -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True, help="JSON: model, precision, batch, rows")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--packing", default="none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    chosen = parser.parse_args(arguments)
    data = json.loads(chosen.file.read_text())
    needed = data["batch"] * (chosen.steps + WARM)
    if len(data["rows"]) < needed:
        raise SystemExit(f"{chosen.file} holds {len(data['rows'])} rows, {needed} are needed")
    return Work(
        data["model"], data["precision"], data["rows"][:needed], data["batch"], chosen.steps, chosen.attention,
        chosen.packing, chosen.threads, chosen.processes, chosen.checkpointing,
    )  # fmt: skip


def measured(work: Work, train: Callable[[Clock], float]) -> None:
    """Run `train`, which ticks after each step and returns the first step's loss; rank 0 prints one JSON line."""
    import torch

    torch.set_num_threads(work.threads)
    clock: Any = Clock(work)  # type: ignore[arg-type]
    loss = train(clock)
    if os.environ.get("RANK", "0") != "0":
        return
    timed = work.rows[work.batch * WARM :]
    tokens = sum(len(prompt) + len(response) for prompt, response in timed)
    line = {"examples_per_second": len(timed) / clock.seconds, "tokens_per_second": tokens / clock.seconds}
    print("RESULT " + json.dumps({**line, "first_loss": loss, "torch": torch.__version__}))
    sys.stdout.flush()
