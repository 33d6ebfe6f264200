"""Three tasks one after another: what is forgotten with replay and elastic weight consolidation, and without.

Each task is to name the body system of an ICD-10-CM term (CDC, public domain), among labels that no other task has;
test rows are of categories that no training row has. The embedded model learns them in a chain of runs, and evaluation
answers every task with the model of every time. Takes about ten minutes on two idle cores.

Run: python benchmarks/continual.py [--rows 480] [--tasks 3] [--seed 0] [--runs DIRECTORY] [--set KEY=VALUE ...]
`--set continual.replay=0` leaves the penalty alone, `--set continual.ewc=0` replay alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from r1core_medical.icd10 import Icd10Specialty, Split
from record import write

GROUPS = {
    "inner": ("heart", "lung", "gut", "urinary", "blood", "hormones"),
    "outer": ("skin", "bone", "eye", "ear", "injury"),
    "others": ("brain", "mental", "pregnancy", "newborn", "cancer", "congenital"),
}
"""The labels of each task."""
RECIPE = """\
[run]
name = "{name}"
seed = {seed}
plugins = ["smollm2"]

[model]
base = "smollm2-135m-instruct"
template = "plain"
attention = "eager"

[data]
prompt = "Which specialty treats this diagnosis?\\n{{text}}"
max_rows = {rows}
max_eval_rows = {eval_rows}

[data.files]
train = "{folder}/train.csv"
val = "{folder}/val.csv"
test = "{folder}/test.csv"

[data.columns]
id = "id"
cluster = "category"

[adapter]
first_layer = 4

[train]
learning_rate = 8e-4
lora_plus_ratio = 4
epochs = 2

[evaluate]
baselines = false
max_new_tokens = 4
"""


def records(group: str, split: Split) -> Iterator[dict[str, str]]:
    """The data set's terms whose label is of this group."""
    for example in Icd10Specialty().read(split):
        if (answer := example.messages[-1].content) in GROUPS[group]:
            text = example.messages[-2].content.partition("\n")[2]
            yield {"id": example.id, "text": text, "answer": answer, "category": str(example.fields["category"])}


def files(group: str, folder: Path) -> Path:
    """Write a task's records."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, ("id", "text", "answer", "category"))
            table.writeheader()
            table.writerows(records(group, split))  # type: ignore[arg-type]
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--tasks", type=int, default=3, choices=(2, 3))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    place, earlier = chosen.runs.absolute(), None
    for number, group in enumerate(list(GROUPS)[: chosen.tasks]):
        folder = files(group, place / "continual-data" / group)
        recipe = folder / "recipe.toml"
        given = {"name": group, "seed": chosen.seed, "rows": chosen.rows, "eval_rows": chosen.rows // 3}
        recipe.write_text(RECIPE.format(**given, folder=folder), encoding="utf-8")
        run = place / f"continual-seed{chosen.seed}-{number + 1}-{group}"
        command = [sys.executable, "-m", "r1core.cli.main", "adapt", "--recipe", str(recipe), "--run", str(run)]
        if earlier is not None:
            command += ["--continue", str(earlier)]
        sets = [one for one in chosen.sets if earlier is not None or not one.startswith("continual.")]
        command += [word for one in sets for word in ("--set", one)]
        subprocess.run(command, check=True)
        earlier = run
    told = json.loads((run / "evaluation" / "continual.json").read_text(encoding="utf-8"))
    rows: list[dict[str, object]] = []
    for measure, sides in told["measures"].items():
        for name in ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
            ours, naive = (
                sides[side]["figures"][name]["value"] if side in sides else None for side in ("ours", "naive")
            )
            row = {
                "figure": f"{name}, {measure} answers, {chosen.tasks} tasks of {chosen.rows} rows",
                "unit": "fraction",
            }
            row |= {"value": round(ours, 4), "peer": None if naive is None else f"naive tuning {naive:.4f}"}
            if name == "forgetting" and naive is not None:
                row |= {"target": "less than naive tuning", "met": ours < naive}
            rows.append(row)
    write("continual", rows)


if __name__ == "__main__":
    main()
