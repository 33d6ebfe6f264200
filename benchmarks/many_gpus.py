"""All GPUs of this machine against one: tokens a second and memory a GPU under `ddp` and `fsdp2`, and the same losses.

Run: python benchmarks/many_gpus.py [--shape 1b]. Every system does the same batches, as many rows a GPU; one process is
told the rows of all for the comparison of losses. Without GPUs: two processes on cores, for trying it out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from record import write
from training_gpu import PEERS, ROWS


def measured(variant: str, shape: str, rows: int, steps: int, world: int) -> dict[str, Any]:
    """One training; `world` processes behind torchrun, or one alone."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
    work = ["--shape", shape, "--rows", str(rows), "--variant", variant, "--steps", str(steps)]
    command = [sys.executable, *launcher, str(PEERS / "train_ours.py"), *work]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    print(line, flush=True)
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="1b" if torch.cuda.is_available() else "tiny")
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    world = torch.cuda.device_count() or 2
    rows = ROWS[chosen.shape]
    one = measured("default", chosen.shape, rows, chosen.steps, 1)
    same = measured("default", chosen.shape, rows * world, chosen.steps, 1)
    found: list[dict[str, object]] = []
    for variant in ("ddp", "fsdp2"):
        got = measured(variant, chosen.shape, rows * world, chosen.steps, world)
        what = f"{variant}, {world} processes, {chosen.shape}, {rows} rows of 1,024 tokens each"
        gain = got["tokens_per_second"] / one["tokens_per_second"]
        apart = abs(got["loss"] - same["loss"]) / same["loss"]
        found += [
            {"figure": f"speed over one process ({what})", "value": round(gain, 3), "unit": "times"},
            {"figure": f"tokens/s ({what})", "value": round(got["tokens_per_second"]), "unit": "tokens/s"},
            {"figure": f"peak memory a process ({what})", "value": round(got["peak_gib"], 2), "unit": "GiB"},
            {"figure": f"last loss against one process with all rows, bf16 ({what})", "value": apart, "unit": "",
             "target": "<= 1e-2", "met": apart <= 1e-2},
        ]  # fmt: skip
    found.append({"figure": "peak memory of one process", "value": round(one["peak_gib"], 2), "unit": "GiB"})
    machine = f"{world} x {one['device']}, torch {one['torch']}"
    write("many_gpus", [{**row, "machine": machine} for row in found])


if __name__ == "__main__":
    main()
