"""Training speed on one GPU beside the peers: the same shapes, rows, precision and LoRA, one process each, in turns.

Run: python benchmarks/training_gpu.py [--shapes 135m,1b] [--rounds 2] [--peers-python PYTHON] [--keep FOLDER]
Peers run in an environment of their own (`benchmarks/peers/requirements.txt`), by default in this one. Sequences have
1,024 tokens; every system does the same number of steps in every round (A B C A B C), and its median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from record import write

PEERS = Path(__file__).parent / "peers"
ROWS = {"135m": 16, "1b": 8, "tiny": 2}
"""Rows of a batch."""
GAIN = {"135m": 1.2, "1b": 1.25}
"""Tokens a second over the best peer's that are aimed at."""
SYSTEMS = (
    ("train_ours.py", "default"),
    ("train_trl.py", "default"),
    ("train_trl.py", "unchecked"),
    ("train_plain.py", "eager"),
    ("train_plain.py", "compiled"),
    ("train_plain.py", "liger"),
    ("train_plain.py", "liger_compiled"),
)


def measured(script: str, variant: str, shape: str, interpreter: str, steps: int) -> dict[str, object] | None:
    """One run of one system; None where it does not run here, with its last words on standard error."""
    command = [interpreter, str(PEERS / script), "--shape", shape, "--rows", str(ROWS[shape]), "--variant", variant]
    root = str(PEERS.parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, env=environment)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            print(line, flush=True)
            found: dict[str, object] = json.loads(line.removeprefix("RESULT "))
            return found
    print(f"{script} {variant} on {shape}: no result: {done.stderr.strip()[-400:]}", file=sys.stderr, flush=True)
    return None


def table(results: list[dict[str, object]], shape: str) -> list[dict[str, object]]:
    """The rows of the record for one shape."""
    by_system: dict[str, list[dict[str, object]]] = {}
    for one in results:
        by_system.setdefault(str(one["system"]), []).append(one)

    def median(system: str, key: str) -> float:
        return statistics.median(float(str(one[key])) for one in by_system[system])

    speeds = {system: median(system, "tokens_per_second") for system in by_system}
    peaks = {system: median(system, "peak_gib") for system in by_system}
    ours = "r1core default"
    peers = {system: speed for system, speed in speeds.items() if system != ours}
    card = f"{results[0]['device']}, torch {results[0]['torch']}, {shape}, {ROWS[shape]} rows"
    rows: list[dict[str, object]] = [
        {"figure": f"{system}: speed ({card})", "value": round(speed), "unit": "tokens/s"}
        for system, speed in speeds.items()
    ]
    rows += [
        {"figure": f"{system}: peak memory ({card})", "value": round(peak, 2), "unit": "GiB"}
        for system, peak in peaks.items()
    ]
    if ours in speeds and peers:
        best = max(peers, key=lambda name: peers[name])
        gain = speeds[ours] / peers[best]
        target = GAIN.get(shape)
        rows.append(
            {
                "figure": f"speed over the best peer ({card})",
                "value": round(gain, 3),
                "unit": "times",
                "target": target and f">= {target}",
                "met": target and gain >= target,
                "peer": f"{best}: {peers[best]:.0f} tokens/s",
            }
        )
    if ours in peaks and "trl default" in peaks:
        met = peaks[ours] <= peaks["trl default"]
        rows.append(
            {
                "figure": f"peak memory over TRL's default ({card})",
                "value": round(peaks[ours] / peaks["trl default"], 3),
                "unit": "times",
                "target": "<= 1",
                "met": met,
                "peer": f"trl default: {peaks['trl default']:.2f} GiB",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="135m,1b")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--systems", default="", help="only those whose script and variant hold one of these words")
    parser.add_argument("--peers-python", default=sys.executable)
    chosen = parser.parse_args()
    words = [word for word in chosen.systems.split(",") if word]
    systems = [s for s in SYSTEMS if not words or any(word in " ".join(s) for word in words)]
    rows: list[dict[str, object]] = []
    for shape in chosen.shapes.split(","):
        results = []
        for _ in range(chosen.rounds):
            for script, variant in systems:
                python = sys.executable if script == "train_ours.py" else chosen.peers_python
                results += [one for one in [measured(script, variant, shape, python, chosen.steps)] if one]
        if results:
            rows += table(results, shape)
    write("training_gpu_" + chosen.shapes.replace(",", "_"), rows)


if __name__ == "__main__":
    main()
