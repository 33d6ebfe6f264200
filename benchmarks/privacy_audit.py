"""What `r1core dp audit` finds: in the mechanism as it is, and with faults planted into it.

Run: python benchmarks/privacy_audit.py [--times 5] [--faults none,no-noise,...] [--canaries 1000]
A private run is trained by the command line (a tiny model, 1,200 patients of two records, 60 steps, epsilon 3). Then it
is audited so many times with each fault: the audit runs in a process of its own in which one function of the plugin is
replaced (`FAULTS`), and everything else is as installed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import write

MODEL = Path(__file__).resolve().parent.parent / "examples" / "hooks" / "model_source.py"
PATIENTS, RECORDS = 1_600, 2  # three quarters of them are in the training part
RECIPE = """
[run]
name = "ward"
plugins = ["dp"]

[model]
base = "tiny-random"
threads = 1

[data]
kind = "text"
files = { train = "ward.csv" }
columns = { group = "patient" }

[train]
steps = 60
batch_size = 60
packing = "padded"

[evaluate]
baselines = false

[plugins.dp]
dataset_id = "ward"
ledger = "ledgers"
"""
FAULTS = {
    "none": "",
    "no-noise": "policy.normal = lambda n, bits, device: 0.0 * normal(n, bits, device)",
    "quarter-of-the-noise": "policy.normal = lambda n, bits, device: 0.25 * normal(n, bits, device)",
    "a-record-in-every-batch": """
def chosen_and_one(*given):
    mask = chosen(*given)
    mask[0] = True
    return mask
policy.chosen = chosen_and_one""",
    "every-record-in-every-batch": "policy.chosen = lambda *given: chosen(*given) | True",
    "no-clipping": "clipping.add_clipped = lambda total, g, norm: add_clipped(total, g, 1e9)",
    "records-clipped-one-by-one": "clipping.by_unit = lambda g, rows: [one.float() for one in g]",
    "noise-of-a-seed-each-step": """
def seeded(n, bits, device):
    return torch.randn(n, generator=torch.Generator().manual_seed(7))
policy.normal = seeded""",
    "batches-of-one-size": """
def shuffled(number, rate, fill):
    mask = torch.zeros(number, dtype=torch.bool)
    mask[torch.randperm(number)[: round(rate * number)]] = True
    return mask
policy.chosen = shuffled""",
}
ASKED = ("no-noise", "quarter-of-the-noise", "a-record-in-every-batch")  # of these, four of five are to be flagged
PATCHED = """
import sys, torch
from r1core_dp import clipping, policy
chosen, normal, add_clipped = policy.chosen, policy.normal, clipping.add_clipped
{fault}
from r1core.cli.main import main
main(sys.argv[1:])
"""


def command(folder: Path, arguments: list[str], fault: str = "") -> subprocess.CompletedProcess[str]:
    """The command line, with a fault."""
    words = [sys.executable, "-c", PATCHED.format(fault=fault), *arguments, "--plugin", str(MODEL)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)


def prepared(folder: Path) -> None:
    """Train the run that is audited."""
    (folder / "my.toml").write_text(RECIPE, encoding="utf-8")
    with (folder / "ward.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("id", "patient", "text", "answer"))
        for number in range(PATIENTS * RECORDS):
            table.writerow((f"r{number}", f"p{number % PATIENTS}", f"Number {number}?", f"Yes, {number % 4}."))
    done = command(folder, ["train", "--recipe", "my.toml"])
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--canaries", type=int, default=1000)
    chosen = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        prepared(folder)
        for name in chosen.faults.split(","):
            found = []
            for _ in range(chosen.times):
                words = ["dp", "audit", "runs/ward", "--canaries", str(chosen.canaries), "--json"]
                done = command(folder, words, FAULTS[name])
                if done.returncode not in (0, 1) or not done.stdout:
                    raise SystemExit(done.stdout + done.stderr)
                found.append(json.loads(done.stdout))
            flagged = sum(bool(one["flags"]) for one in found)
            lowest = [one["epsilon_at_least"] for one in found]
            by_bound = sum(one["epsilon_at_least"] > one["epsilon_claimed"] for one in found)
            print(name, flagged, "of", len(found), sorted(lowest), found[0]["flags"], flush=True)
            least = 0.8 * len(found) if name in ASKED else None
            rows.append(
                {"figure": f"audits that flag: {name}", "value": flagged, "unit": f"of {len(found)}",
                 "target": "0" if name == "none" else least,
                 "met": flagged == 0 if name == "none" else None if least is None else flagged >= least,
                 "peer": {"median lower bound of epsilon": statistics.median(lowest),
                          "flagged by the lower bound": by_bound}}
            )  # fmt: skip
    write("privacy_audit", rows)


if __name__ == "__main__":
    main()
