"""Training speed on one GPU beside the peers: the same shapes, rows, precision and LoRA, one process each, in turns.

Run: python benchmarks/training_gpu.py [--shapes 135m,1b] [--rounds 2] [--peers-python PYTHON] [--unsloth-python PYTHON]
Peers run in an environment of their own (`benchmarks/peers/requirements.txt`), by default in this one, and Unsloth in
another (`requirements-unsloth.txt`). With `flash-attn-4` installed here, ours uses it and says so. Sequences have 1,024
tokens; every system does the same number of steps in every round (A B C A B C), and its median counts.
`--read LOG` makes the table from the RESULT lines of an earlier run, whole or not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import write

PEERS = Path(__file__).parent / "peers"
ROWS = {"135m": 16, "1b": 8, "tiny": 2}
"""Rows of a batch."""
GAIN = {"135m": 1.2, "1b": 1.25}
"""Tokens a second over the best peer's that are aimed at."""
OURS = ("r1core default with flash-attn-4", "r1core default")
"""The system that is compared: the first of these that was measured."""
UNSLOTH = "train_unsloth.py"
SYSTEMS = (
    ("train_ours.py", "default"),
    ("train_ours.py", "checkpointed"),
    ("train_trl.py", "default"),
    ("train_trl.py", "unchecked"),
    ("train_plain.py", "eager"),
    ("train_plain.py", "compiled"),
    ("train_plain.py", "liger"),
    ("train_plain.py", "liger_compiled"),
    (UNSLOTH, "unchecked"),
    (UNSLOTH, "default"),
)


def measured(script: str, variant: str, shape: str, interpreter: str, steps: int) -> dict[str, Any] | None:
    """One run of one system; None where it does not run here, with its last words on standard error."""
    command = [interpreter, str(PEERS / script), "--shape", shape, "--rows", str(ROWS[shape]), "--variant", variant]
    root = str(PEERS.parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, env=environment)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            print(line, flush=True)
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return found
    print(f"{script} {variant} on {shape}: no result: {done.stderr.strip()[-400:]}", file=sys.stderr, flush=True)
    return None


def table(results: Sequence[Mapping[str, Any]], shape: str) -> list[dict[str, object]]:
    """The rows of the record for one shape."""
    names = list(dict.fromkeys(str(one["system"]) for one in results))

    def median(system: str, key: str) -> float:
        return statistics.median(float(one[key]) for one in results if one["system"] == system)

    machine = f"{results[0]['device']}, torch {results[0]['torch']}"
    what = f"{shape}, batches of {ROWS[shape]} x 1,024 tokens, bf16"
    rows: list[dict[str, object]] = []
    for name in names:
        rows.append({"figure": f"{name}: speed ({what})", "value": round(median(name, "tokens_per_second"))})
        rows[-1]["unit"] = "tokens/s"
        rows.append({"figure": f"{name}: peak memory ({what})", "value": round(median(name, "peak_gib"), 2)})
        rows[-1]["unit"] = "GiB"
    peers = [name for name in names if not name.startswith("r1core")]
    ours = next((name for name in OURS if name in names), None)
    if ours and peers:
        best = max(peers, key=lambda name: median(name, "tokens_per_second"))
        gain = median(ours, "tokens_per_second") / median(best, "tokens_per_second")
        rows.append(compared(f"speed over the best peer ({what})", gain, best, least=GAIN.get(shape)))
    for own, peer in ((ours, "trl unchecked"), ("r1core checkpointed", "trl default")):
        if own and own in names and peer in names:
            share = median(own, "peak_gib") / median(peer, "peak_gib")
            rows.append(compared(f"peak memory of {own} over its peer's ({what})", share, peer, most=1.0))
    return [{**row, "machine": machine} for row in rows]


def compared(
    figure: str, value: float, peer: str, *, least: float | None = None, most: float | None = None
) -> dict[str, object]:
    """A ratio and its target, if there is one."""
    target = f">= {least}" if least else f"<= {most}" if most else None
    met = None if target is None else value >= least if least else value <= (most or 0.0)
    return {"figure": figure, "value": round(value, 3), "unit": "times", "target": target, "met": met, "peer": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="135m,1b")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--systems", default="", help="only those whose script and variant hold one of these words")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--unsloth-python", default=sys.executable)
    parser.add_argument("--read", type=Path, help="RESULT lines of an earlier run")
    chosen = parser.parse_args()
    if chosen.read:
        lines = [line for line in chosen.read.read_text().splitlines() if line.startswith("RESULT ")]
        results = [json.loads(line.removeprefix("RESULT ")) for line in lines]
        shapes = list(dict.fromkeys(one["shape"] for one in results))
        write("training_gpu", [row for s in shapes for row in table([r for r in results if r["shape"] == s], s)])
        return
    words = [word for word in chosen.systems.split(",") if word]
    systems = [s for s in SYSTEMS if not words or any(word in " ".join(s) for word in words)]
    rows: list[dict[str, object]] = []
    for shape in chosen.shapes.split(","):
        results = []
        for _ in range(chosen.rounds):
            for script, variant in systems:
                python = {"train_ours.py": sys.executable, UNSLOTH: chosen.unsloth_python}.get(
                    script, chosen.peers_python
                )
                results += [one for one in [measured(script, variant, shape, python, chosen.steps)] if one]
        if results:
            rows += table(results, shape)
    write("training_gpu", rows)


if __name__ == "__main__":
    main()
