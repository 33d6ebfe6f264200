"""Synonyms that the dictionary does not hold, of HPO concepts that the encoder has never seen; then all of HPO.

Run: python benchmarks/normalisation.py [--part development] [--seeds 0] [--no-whole] [--peers-python PYTHON]

About two minutes of one core a seed, and three for the whole of HPO. Peers run on the first seed's split, where they
are installed (benchmarks/peers/requirements-normalisation.txt). The split is that of `r1core_umls.evaluation`. Choices
are made on `development`, where the encoder may learn from six tenths of the concepts; `--part test` (eight tenths) is
for the end, once. No name and no definition of a concept that is asked about trains encoder or ranker; its definition
is part of the dictionary that mentions are compared with, as its names are.

All of HPO, trained on every name: time and memory of a process without torch, and names as they stand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np
from r1core_umls.evaluation import HeldOut, held_out, recall
from r1core_umls.evidence import Witness
from r1core_umls.fitting import fit
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.tables import Tables
from r1core_umls.training import Training
from record import write

COVERAGES, PRECISIONS = (0.5, 0.7), (0.9, 0.95, 0.98)
AT_LEAST = {
    "recall@1": 0.85, "recall@5": 0.92, "precision at coverage 0.5": 0.95, "mentions": 5000.0,
    "coverage at a stated precision of 0.95": 0.5, "unambiguous names found": 0.99,
}  # fmt: skip
AT_MOST = {"training on all of HPO": 180.0, "single mention, p50": 2.0, "resident memory": 300.0}
UNITS = {
    "mentions": "mentions/CPU-s", "training": "CPU-s", "tables": "CPU-s", "training on all of HPO": "CPU-s",
    "single mention, p50": "ms", "single mention, p99": "ms", "opening": "s", "resident memory": "MB",
}  # fmt: skip
TRAIN = """
from r1core_umls.cache import load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.trained import load_or_train
import time
base = load_or_build(HpoSource())
began = time.process_time()
load_or_train(base)
print(time.process_time() - began)
"""
PROBE = """
import json, statistics, sys, time
from pathlib import Path
from r1core_umls.cache import load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.normaliser import Normaliser
from r1core_umls.trained import load
queries = json.load(sys.stdin)
began = time.process_time()
base = load_or_build(HpoSource())
normaliser = Normaliser(base, load(base))
told = {"opening": time.process_time() - began}
changed = [f"{query} presenting" for query in queries]
normaliser.candidates(changed)
taken = []
for mention in changed[:500]:
    began = time.process_time()
    normaliser.candidates([mention])
    taken.append((time.process_time() - began) * 1e3)
told |= {"single mention, p50": statistics.median(taken), "single mention, p99": sorted(taken)[int(0.99 * len(taken))]}
names = [base.surface(name) for name in range(base.number_of_names)]
alone = [(at, name) for at, name in enumerate(names) if len(base.lookup(name)) == 1]
found = normaliser.normalise([name for _, name in alone])
right = [one is not None and one.position == base.concept_of_name[at] for (at, _), one in zip(alone, found)]
told["unambiguous names found"] = sum(right) / len(right)
assert "torch" not in sys.modules
status = Path("/proc/self/status").read_text().splitlines()
told["resident memory"] = int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6
print(json.dumps(told))
"""


def measured(split: HeldOut, seed: int) -> dict[str, float]:
    """Figures of one seed; times in CPU seconds of this process."""
    began = time.process_time()
    fitted = fit(split.taught, split.teachers, split.definitions, split.parents, Training(seed=seed))
    trained = time.process_time()
    tables = Tables.of(fitted.encoder, split.names, split.owners, split.definitions, split.parents)
    witness = Witness(tables)
    indexed = time.process_time()
    evidence = witness.weigh(split.queries)
    probabilities = fitted.ranker.probabilities(evidence)
    weighed = time.process_time()
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(evidence.concepts, order, 1)
    right = ranked[:, 0] == np.array(split.answers)
    best = probabilities.max(1)
    sure = np.argsort(-best, kind="stable")
    found = {
        "recall@1, encoder alone": recall(evidence.concepts.tolist(), split.answers, 1),
        "recall@5, encoder alone": recall(evidence.concepts.tolist(), split.answers, 5),
        "recall@1": recall(ranked.tolist(), split.answers, 1),
        "recall@5": recall(ranked.tolist(), split.answers, 5),
    }
    found |= {f"precision at coverage {c}": float(right[sure[: round(c * len(sure))]].mean()) for c in COVERAGES}
    for precision in PRECISIONS:
        given = best >= fitted.ranker.threshold(precision)
        found[f"precision at a stated precision of {precision}"] = float(right[given].mean())
        found[f"coverage at a stated precision of {precision}"] = float(given.mean())
    return found | {
        "mentions": len(split.queries) / (weighed - indexed),
        "training": trained - began,
        "tables": indexed - trained,
    }


def whole(queries: list[str]) -> dict[str, float]:
    """Train on all of HPO, and measure a fresh process that uses it."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"R1CORE_CACHE": cache}

        def run(code: str, given: str = "") -> str:
            return subprocess.run(
                [sys.executable, "-c", code], input=given, env=env, stdout=subprocess.PIPE, text=True, check=True
            ).stdout

        seconds = float(run(TRAIN))
        told: dict[str, float] = json.loads(run(PROBE, json.dumps(queries)))
    return {"training on all of HPO": seconds} | told


def peers(python: str, split: HeldOut) -> list[dict[str, object]]:
    """What the peers find on the same split."""
    task = {"names": split.names, "owners": split.owners, "queries": split.queries, "answers": split.answers}
    script = str(Path(__file__).parent / "peers" / "normalisation_strings.py")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    printed = subprocess.run(
        [python, script], input=json.dumps(task), env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return [{**row, "peer": str(row["figure"]).split(",")[0].split(":")[0]} for row in json.loads(printed.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("development", "test"), default="development")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--whole", action=argparse.BooleanOptionalAction, default=True, help="measure all of HPO too")
    parser.add_argument("--peers-python", help="the interpreter of an environment that has the peers")
    chosen = parser.parse_args()
    concepts = list(KnowledgeBase.build(HpoSource()).concepts)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    splits = {seed: held_out(concepts, seed, chosen.part) for seed in seeds}
    found = [measured(splits[seed], seed) for seed in seeds]
    told = f"{chosen.part} concepts, {len(splits[seeds[0]].queries):,} queries, {len(seeds)} seeds"
    figures = [(name, told, mean(one[name] for one in found)) for name in found[0]]
    if chosen.whole:
        figures += [(name, "all of HPO", value) for name, value in whole(list(splits[seeds[0]].queries)).items()]
    rows: list[dict[str, object]] = []
    for name, what, value in figures:
        rows.append({"figure": f"{name}, {what}", "value": round(value, 4), "unit": UNITS.get(name, "fraction")})
        if name in AT_LEAST:
            rows[-1] |= {"target": f">= {AT_LEAST[name]:g}", "met": value >= AT_LEAST[name]}
        if name in AT_MOST:
            rows[-1] |= {"target": f"<= {AT_MOST[name]:g}", "met": value <= AT_MOST[name]}
    if chosen.peers_python:
        rows += peers(chosen.peers_python, splits[seeds[0]])
    write("normalisation", rows)


if __name__ == "__main__":
    main()
