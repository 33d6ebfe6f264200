"""What privacy costs in accuracy: the medical task at a patient's epsilon of 3, beside the same without privacy.

Run: python benchmarks/private_utility.py [--seeds 0,1,2] [--part test] [--runs DIRECTORY] [--jobs 1] [--set KEY=VALUE]
Both arms train SmolLM2-135M on `medical/patients` (10,000 patients, four records each) by `r1core adapt`, as a user
does, and are asked the diagnoses of the test split, which are nobody's, within the label set. The figure is the share
of the non-private gain over the base model that the private model keeps. Each seed has a ledger of its own: these
patients are made up, and real ones could not be trained on three times at this price. `--part val` is for choosing
hyperparameters, on other patients and without the test. On a CPU an arm takes hours; on a GPU minutes, several side by
side with `--jobs`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adapting
from record import machine, write

TARGET = 0.8  # of the non-private gain
EPSILON = 3.0
HERE = Path(__file__).parent
RECIPE = """
[run]
plugins = [{plugins}]
privacy = "none"

[data]
source = "{source}"

[train]
packing = "padded"
compile = "off"
checkpoint_every = 100000
{train}
[evaluate]
batch_size = 256
baselines = false
base_model = {base}

[report]
demo_prompt = ""
"""
PLAIN = "batch_size = 16\n"
PRIVATE = """batch_size = 1000
steps = 100
learning_rate = 1.4e-2
lora_plus_ratio = 1
softmax = "labels"
micro_batch_tokens = 32768

[adapter]
rank = 16
alpha = 16
first_layer = 20
freeze_a = true
initial = "principal"
public_source = "medical/icd10_specialty_titles"

[plugins.dp]
dataset_id = "made-up-patients"
epsilon = {epsilon}
ledger = "ledgers"
"""


def recipe(private: bool, part: str) -> str:
    """The recipe of an arm, over the medical domain's."""
    source = "medical/patients" if part == "test" else "validation_patients/patients"
    plugins = '"smollm2", "dp"' if private else '"smollm2"'
    made = RECIPE.format(
        plugins=plugins,
        source=source,
        train=PRIVATE.format(epsilon=EPSILON) if private else PLAIN,
        base="false" if private else "true",
    )
    return made.replace('privacy = "none"', 'privacy = "required"') if private else made


def adapt(folder: Path, arm: str, seed: int, part: str, sets: Sequence[str]) -> Path:
    """Adapt one arm, or reuse what is there; the run directory."""
    further = ("--plugin", str((HERE / "peers" / "validation_patients.py").resolve())) if part == "val" else ()
    home = folder / f"{arm}-seed{seed}"
    return adapting.adapt(home, "medical", recipe(arm == "private", part), (f"run.seed={seed}", *sets), *further)


def accuracy(run: Path, system: str) -> float:
    """Share of the asked diagnoses whose specialty is right; `system` as evaluation names it."""
    rows = json.loads((run / "evaluation" / "summary.json").read_text("utf-8"))
    (found,) = (row["value"] for row in rows if row["system"] == system and row["metric"] == "accuracy")
    return float(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--part", choices=("test", "val"), default="test")
    parser.add_argument("--arms", default="plain,private")
    parser.add_argument("--runs", type=Path, default=Path("runs-private"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", dest="sets", action="append", default=[], help="of the private arm")
    chosen = parser.parse_args()
    arms, seeds = chosen.arms.split(","), [int(seed) for seed in chosen.seeds.split(",")]
    wanted = [(arm, seed) for seed in seeds for arm in arms]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        places = list(
            pool.map(
                lambda one: adapt(chosen.runs, *one, chosen.part, chosen.sets if one[0] == "private" else ()), wanted
            )
        )
    runs = dict(zip(wanted, places, strict=True))
    if set(arms) != {"plain", "private"}:
        for (arm, seed), place in runs.items():
            print(arm, seed, accuracy(place, "adapted+constrained"))
        return
    found = {
        "base": [accuracy(runs["plain", seed], "base+constrained") for seed in seeds],
        "plain": [accuracy(runs["plain", seed], "adapted+constrained") for seed in seeds],
        "private": [accuracy(runs["private", seed], "adapted+constrained") for seed in seeds],
    }
    kept = [(p - b) / (q - b) for b, q, p in zip(*found.values(), strict=True)]
    cards = [json.loads((runs["private", seed] / "privacy" / "card.json").read_text("utf-8")) for seed in seeds]
    seen = json.loads((runs["private", seeds[0]] / "manifest.json").read_text("utf-8"))["stages"]["train"]["device"]
    where = ", ".join([machine(), *seen.get("accelerators", [])])
    mean, what = statistics.mean(kept), f"{len(seeds)} seeds, {cards[0]['units']} patients"
    per_seed = {"kept": kept, **found}
    print(json.dumps(per_seed))
    if chosen.part == "val":
        return
    write(
        "private_utility",
        [
            {"figure": f"share of the non-private gain kept at epsilon 3 a patient ({what})", "value": round(mean, 3),
             "unit": "", "target": TARGET, "met": mean >= TARGET, "peer": per_seed, "machine": where},
            {"figure": "epsilon, the larger of two accountants", "value": max(card["epsilon"] for card in cards),
             "unit": "", "target": EPSILON, "met": all(card["epsilon"] <= EPSILON for card in cards), "peer": None,
             "machine": where},
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
