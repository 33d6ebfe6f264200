"""Four hospitals, each with mostly its own specialties: alone, pooled, and together by federated rounds.

The training rows of `medical/icd10_specialty` (ICD-10-CM terms, CDC, public domain; the label is a specialty) are dealt
out by a rule that draws nothing: a label has a home hospital (`HOMES`); of its rows, those whose id hashes below `HOME`
go there and the others to one of the other three, also by hash. Every arm sees the same number of training rows in all,
in steps of 16: a hospital alone and the pooled rows in one training, the federated arms shared out over the four
clients. Accuracy is that of the constrained choice on the common test split; settings are chosen on `val`.

Run in an environment with flwr (`make test-flower` builds one):
python benchmarks/federated.py [--steps 120] [--rounds 3] [--eval-rows 900] [--seeds 0] [--runs DIRECTORY]
python benchmarks/federated.py --choose     tries settings of the federated arms on `val`, and measures nothing on test
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from r1core_medical.icd10 import LABELS, Icd10Specialty, Split
from record import write

HOMES = {
    "north": ("heart", "lung", "blood", "hormones", "infection"),
    "south": ("bone", "injury", "skin"),
    "east": ("brain", "mental", "eye", "ear", "congenital", "newborn"),
    "west": ("gut", "urinary", "pregnancy", "cancer", "symptoms", "services"),
}
HOME = 0.85  # share of a label's rows that go to its home
BATCH = 16
SETTINGS = {"fedavg": {"rate": 8e-4, "mu": 0.0}, "fedprox": {"rate": 8e-4, "mu": 0.01}}
"""Of the federated arms; the rate was chosen by `--choose`, mu is of the grid of the FedProx paper and was not."""
TRIED = [("fedavg", 8e-4, 0.0), ("fedavg", 2e-3, 0.0)]
RECIPE = """\
[run]
name = "{name}"
seed = {seed}
plugins = ["smollm2", "flower"]

[model]
base = "smollm2-135m-instruct"
template = "plain"
attention = "eager"
processes = 1
threads = 1
precision = "fp32"

[data]
prompt = "Which specialty treats this diagnosis?\\n{{text}}"
choices = {labels}
max_eval_rows = {eval_rows}

[data.files]
train = "{folder}/{train}.csv"
val = "{folder}/val.csv"
test = "{folder}/test.csv"

[data.columns]
id = "id"
cluster = "category"

[adapter]
first_layer = 4

[train]
learning_rate = {rate}
lora_plus_ratio = 4
label_smoothing = 0.05
batch_size = 16
steps = {steps}

[evaluate]
baselines = false
base_model = false
max_new_tokens = 4

[plugins.flower]
rounds = {rounds}
min_clients = 4
{federated}
"""


def position(*words: str) -> float:
    """A place in [0, 1) by SHA-256."""
    return int.from_bytes(hashlib.sha256("/".join(words).encode()).digest()[:8], "big") / 2.0**64


def hospital_of(row: dict[str, str]) -> str:
    """Where a row lives."""
    home = next(name for name, labels in HOMES.items() if row["answer"] in labels)
    if position("home", row["id"]) < HOME:
        return home
    others = [name for name in HOMES if name != home]
    return others[int(position("other", row["id"]) * len(others))]


def records(split: Split) -> Iterator[dict[str, str]]:
    for example in Icd10Specialty().read(split):
        text, label = example.messages[-2].content.partition("\n")[2], example.messages[-1].content
        yield {"id": example.id, "text": text, "answer": label, "category": str(example.fields["category"])}


def files(folder: Path, rows: int) -> dict[str, int]:
    """Write the splits, each hospital's part of the training rows, and the pooled ones; the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = sorted(records("train"), key=lambda row: position("sample", row["id"]))
    train = drawn[:rows]
    parts = {name: [row for row in train if hospital_of(row) == name] for name in HOMES}
    parts |= {"server": drawn[rows : rows + BATCH]}  # a recipe names training rows; a server never trains on them
    parts |= {"pooled": train, "val": list(records("val")), "test": list(records("test"))}
    for name, some in parts.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, ("id", "text", "answer", "category"))
            table.writeheader()
            table.writerows(some)
    return {name: len(some) for name, some in parts.items()}


class Bench:
    """Runs arms in one folder."""

    def __init__(self, place: Path, steps: int, rounds: int, eval_rows: int) -> None:
        self.place, self.steps, self.rounds, self.eval_rows = place, steps, rounds, eval_rows
        self.folder = place / "federated-data"
        self.rows = files(self.folder, steps * BATCH)
        print("rows", self.rows, flush=True)

    def arm(self, name: str, seed: int, train: str, steps: int, rate: float, federated: str, verb: list[str]) -> Path:
        """Write a recipe and run a verb on it; the run directory."""
        run = self.place / f"{name}-seed{seed}"
        recipe = self.folder / f"{run.name}.toml"
        recipe.write_text(
            RECIPE.format(
                name=name, seed=seed, labels=json.dumps(list(LABELS.values())), folder=self.folder, train=train,
                rate=rate, steps=steps, rounds=self.rounds, federated=federated, eval_rows=self.eval_rows,
            ),
            encoding="utf-8",
        )  # fmt: skip
        if (run / "adapter").is_dir():  # of a benchmark that was stopped
            return run
        command = [sys.executable, "-m", "r1core", *verb, "--recipe", str(recipe), "--run", str(run)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return run

    def alone(self, name: str, seed: int) -> Path:
        """One training on one file's rows."""
        return self.arm(name, seed, name, self.steps, 8e-4, "", ["train"])

    def together(self, name: str, seed: int, strategy: str, rate: float, mu: float, validate: bool = False) -> Path:
        """Federated rounds: each client takes a fourth of the steps."""
        clients = "".join(f'{one} = "{self.folder}/{one}.csv"\n' for one in HOMES)
        told = f'strategy = "{strategy}"\nproximal_mu = {mu}\nvalidate_rounds = {str(validate).lower()}\n'
        told += f"[plugins.flower.clients]\n{clients}"
        each = self.steps // (len(HOMES) * self.rounds)
        return self.arm(name, seed, "server", each, rate, told, ["federate", "run"])


def accuracy(run: Path) -> float:
    """Of the constrained choice on the test split."""
    subprocess.run([sys.executable, "-m", "r1core", "evaluate", str(run)], check=True)
    rows = json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    return float(next(r["value"] for r in rows if r["system"] == "adapted+constrained" and r["metric"] == "accuracy"))


def choose(bench: Bench) -> None:
    for strategy, rate, mu in TRIED:
        run = bench.together(f"choose-{strategy}-{rate}-{mu}", 0, strategy, rate, mu, validate=True)
        told = json.loads((run / "federated.json").read_text(encoding="utf-8"))["rounds"]
        print(strategy, rate, mu, [one["validation_accuracy"] for one in told], flush=True)


def measure(bench: Bench, seeds: list[int]) -> None:
    """Every arm with every seed; written after each, so that a benchmark that is stopped tells what it has."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name in ("pooled", *SETTINGS, *sorted(HOMES, key=bench.rows.__getitem__)):
            run = bench.together(name, seed, name, **SETTINGS[name]) if name in SETTINGS else bench.alone(name, seed)
            found.setdefault(name, []).append(accuracy(run))
            tell(bench, found)


def tell(bench: Bench, found: dict[str, list[float]]) -> None:
    means = {name: statistics.mean(values) for name, values in found.items()}
    alone = [means[name] for name in HOMES if name in means]
    rows = []
    for name, mean in means.items():
        what = f"{name} alone, {bench.rows[name]} rows" if name in HOMES else name
        seen = f"{bench.steps * BATCH} rows seen, {len(found[name])} seeds, {bench.eval_rows or 'all'} test rows"
        row: dict[str, object] = {"figure": f"accuracy on test, {what}, {seen}", "unit": "fraction"}
        row |= {"value": round(mean, 4), "peer": f"pooled {means['pooled']:.4f}" if name != "pooled" else None}
        if name in SETTINGS and len(alone) == len(HOMES):
            row |= {"target": f"more than the best hospital alone, {max(alone):.4f}", "met": mean > max(alone)}
        rows.append(row)
    write("federated", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--eval-rows", type=int, default=900, help="of val and of test, drawn by hash; 0 = all")
    parser.add_argument("--choose", action="store_true")
    chosen = parser.parse_args()
    bench = Bench(chosen.runs.absolute(), chosen.steps, chosen.rounds, chosen.eval_rows)
    choose(bench) if chosen.choose else measure(bench, chosen.seeds)


if __name__ == "__main__":
    main()
