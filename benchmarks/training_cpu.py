"""Training speed on a CPU beside TRL: the medical demonstration's rows, the same model, LoRA and precision, in turns.

Run: python benchmarks/training_cpu.py --install runs/peers            (TRL's own environment is made there, by pip)
     python benchmarks/training_cpu.py --peers-python PYTHON [--rounds 3] [--steps 20] [--systems WORDS]
Every system trains SmolLM2-135M-Instruct with LoRA of rank 16 on all linear layers of all blocks, 16 rows a step in the
order in which they were prepared, prompts masked; the first five steps are not timed. Rounds alternate (A B C A B C)
and a system's median counts; tokens are those of the rows, padding and shared starts not counted. That all train on
the same tokens is checked by the first step's loss. Start-up is not counted. `--read LOG` makes the table from the
RESULT lines of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import write

HERE = Path(__file__).parent
WARM = 5
"""Untimed steps, as in `peers/workload.py`."""
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest relative difference of the first step's loss between two systems."""
OURS, TRL = "r1core", "trl"
EAGER, SDPA = ("--attention", "eager"), ("--attention", "sdpa")
CHECKED = ("--checkpointing",)


def two(threads: int = 1) -> tuple[str, ...]:
    return ("--processes", "2", "--threads", str(threads))


SYSTEMS: dict[str, tuple[str, ...]] = {
    "r1core default": ("--packing", "shared_prefix", *EAGER, *two()),
    "r1core best_fit": ("--packing", "best_fit", *EAGER, *two()),
    "r1core none": ("--packing", "none", *EAGER, *two()),
    "r1core checkpointed": ("--packing", "shared_prefix", *EAGER, *two(), *CHECKED),
    "r1core none, checkpointed": ("--packing", "none", *EAGER, *two(), *CHECKED),
    "r1core one process": ("--packing", "shared_prefix", *EAGER),
    "trl default": ("--packing", "padded", *SDPA, "--threads", "2", *CHECKED),
    "trl one thread, checkpointed": ("--packing", "padded", *SDPA, *CHECKED),
    "trl free, checkpointed": ("--packing", "free", *SDPA, "--threads", "2", *CHECKED),
    "trl two threads": ("--packing", "padded", *SDPA, "--threads", "2"),
    "trl one thread": ("--packing", "padded", *SDPA),
    "trl eager, two threads": ("--packing", "padded", *EAGER, "--threads", "2"),
    "trl eager, one thread": ("--packing", "padded", *EAGER),
    "trl two processes": ("--packing", "padded", *SDPA, *two()),
    "trl eager, two processes": ("--packing", "padded", *EAGER, *two()),
    "trl free, two threads": ("--packing", "free", *SDPA, "--threads", "2"),
    "trl free, eager, two threads": ("--packing", "free", *EAGER, "--threads", "2"),
    "trl free, eager, two processes": ("--packing", "free", *EAGER, *two()),
}
"""What is run, by name; `free` is TRL's padding-free batch, its packing of whole rows."""


def install(folder: Path) -> str:
    """An environment with TRL in `folder`, made if it is not there; returns its interpreter."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        limits = ["--constraint", str(HERE.parent / "constraints.txt")]
        needed = ["--requirement", str(HERE / "peers/requirements-cpu.txt")]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *limits, *needed], check=True)
    return str(python)


def rows_file(folder: Path, steps: int) -> Path:
    """The rows as JSON for both sides; made in a process of its own, so that this one stays light."""
    code = (
        "import json, sys; from pathlib import Path; from medical_rows import medical\n"
        "folder, number = Path(sys.argv[1]), int(sys.argv[2]); data = medical(folder, number)\n"
        "rows = [[list(row.prompt), list(row.response)] for row in data.rows]\n"
        "told = {'model': str(data.base.directory()), 'precision': data.precision, 'batch': data.batch, 'rows': rows}\n"
        "(folder / 'rows.json').write_text(json.dumps(told))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(16 * (steps + WARM))], check=True, env=environment())
    return folder / "rows.json"


def environment() -> dict[str, str]:
    path = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}


def measured(name: str, file: Path, steps: int, peers_python: str) -> dict[str, Any] | None:
    """One run of one system; None where it does not run here, with its last words on standard error."""
    flags = SYSTEMS[name]
    ours = name.startswith(OURS)
    interpreter = sys.executable if ours else peers_python
    script = str(HERE / "peers" / ("cpu_ours.py" if ours else "cpu_trl.py"))
    start = [interpreter, script]
    processes = flags[flags.index("--processes") + 1] if "--processes" in flags else "1"
    if not ours and processes != "1":  # ours forks its own
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--rdzv_backend=c10d"]
        start = [interpreter, *launcher, "--rdzv_endpoint=127.0.0.1:0", script]
    threads = flags[flags.index("--threads") + 1] if "--threads" in flags else "1"
    command = [*start, "--file", str(file), "--steps", str(steps), *flags]
    where = {**environment(), "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    if not ours:
        where["PYTHONPATH"] = str(HERE / "peers")  # nothing of ours
    done = subprocess.run(command, capture_output=True, text=True, env=where)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, Any] = {"system": name, **json.loads(line.removeprefix("RESULT "))}
            print("RESULT " + json.dumps(found), flush=True)
            return found
    print(f"{name}: no result: {done.stderr.strip()[-600:]}", file=sys.stderr, flush=True)
    return None


def table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The rows of the record: each system's speed, and the ratios that are aimed at."""
    names = [name for name in SYSTEMS if any(one["system"] == name for one in results)]
    speed = {
        name: statistics.median(float(one["examples_per_second"]) for one in results if one["system"] == name)
        for name in names
    }
    tokens = {
        name: statistics.median(float(one["tokens_per_second"]) for one in results if one["system"] == name)
        for name in names
    }
    rows: list[dict[str, object]] = []
    for name in names:
        rows.append({"figure": f"{name}: examples", "value": round(speed[name], 2), "unit": "examples/s"})
        rows.append({"figure": f"{name}: tokens", "value": round(tokens[name]), "unit": "tokens/s"})
    both = [name for name in names if name.startswith(TRL)]
    plain = [name for name in both if not checked(name)]

    def ratio(figure: str, own: str, peers: Sequence[str], target: float | None = None) -> None:
        if own not in speed or not peers:
            return
        best = max(peers, key=speed.__getitem__)
        value = speed[own] / speed[best]
        row: dict[str, object] = {"figure": figure, "value": round(value, 2), "unit": "times", "peer": best}
        rows.append(row | ({"target": f">= {target}", "met": value >= target} if target else {}))

    ratio("speed of r1core default over trl default", "r1core default", [n for n in both if n == "trl default"], 3.5)
    ratio("speed of r1core default over TRL's best", "r1core default", both, 1.3)
    ratio("checkpointing on in both", "r1core checkpointed", [n for n in both if checked(n)])
    ratio("checkpointing off in both, nothing packed", "r1core none", [n for n in plain if not packed(n)])
    ratio("checkpointing off in both, both packed", "r1core default", [n for n in plain if packed(n)])
    ratio("checkpointing on in both, nothing packed", "r1core none, checkpointed",
          [n for n in both if checked(n) and not packed(n)])  # fmt: skip
    return rows


def checked(name: str) -> bool:
    return CHECKED[0] in SYSTEMS[name]


def packed(name: str) -> bool:
    return "free" in SYSTEMS[name]


def same_work(results: Sequence[Mapping[str, Any]], precision: str) -> None:
    """Refuse results of which one began on another loss: it trained on other tokens, or other weights."""
    losses = {str(one["system"]): float(one["first_loss"]) for one in results}
    low, high = min(losses.values()), max(losses.values())
    if high - low > LOSS_TOLERANCE[precision] * high:
        raise SystemExit(f"the systems do not train on the same: first losses {losses}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--systems", default="", help="only those whose name holds one of these words")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--install", type=Path, help="make an environment with TRL here, and use it")
    parser.add_argument("--folder", type=Path, help="where the prepared run is kept (default: a temporary folder)")
    parser.add_argument("--read", type=Path, help="RESULT lines of an earlier run")
    chosen = parser.parse_args()
    if chosen.read:
        lines = [line for line in chosen.read.read_text().splitlines() if line.startswith("RESULT ")]
        write("training_cpu", table([json.loads(line.removeprefix("RESULT ")) for line in lines]))
        return
    python = install(chosen.install) if chosen.install else chosen.peers_python
    words = [word for word in chosen.systems.split(",") if word]
    systems = [name for name in SYSTEMS if not words or any(word in name for word in words)]
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        file = rows_file(folder, chosen.steps)
        results: list[dict[str, Any]] = []
        for _ in range(chosen.rounds):
            results += [one for one in (measured(n, file, chosen.steps, python) for n in systems) if one]
        same_work(results, json.loads(file.read_text())["precision"])
    write("training_cpu", table(results))


if __name__ == "__main__":
    main()
