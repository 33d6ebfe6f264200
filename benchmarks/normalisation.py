"""Synonyms that the dictionary does not hold, of HPO concepts that the encoder has never seen: recall and precision.

Run: python benchmarks/normalisation.py [--part development] [--seeds 0]. About three minutes of one core a seed. The
split is that of `r1core_umls.evaluation`. Choices are made on `development`, where the encoder may learn from six
tenths of the concepts; `--part test` (eight tenths) is for the end, once. No peers yet.
"""

from __future__ import annotations

import argparse
import time
from statistics import mean

import numpy as np
from r1core_umls.evaluation import HeldOut, held_out, recall
from r1core_umls.evidence import Witness
from r1core_umls.fitting import fit
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.trained import EPOCHS
from r1core_umls.training import Training
from record import write

COVERAGES = (0.5, 0.7)
TARGETS = {"recall@1": 0.85, "recall@5": 0.92, "precision at coverage 0.5": 0.95, "mentions": 5000.0}


def measured(split: HeldOut, seed: int) -> dict[str, float]:
    """Figures of one seed; times in CPU seconds of this process."""
    began = time.process_time()
    fitted = fit(split.taught, split.teachers, split.definitions, split.parents, Training(epochs=EPOCHS, seed=seed))
    trained = time.process_time()
    witness = Witness(fitted.encoder, split.names, split.owners, split.definitions, split.parents)
    indexed = time.process_time()
    evidence = witness.weigh(split.queries)
    probabilities = fitted.ranker.probabilities(evidence)
    weighed = time.process_time()
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(evidence.concepts, order, 1)
    right = ranked[:, 0] == np.array(split.answers)
    sure = np.argsort(-probabilities.max(1), kind="stable")
    found = {
        "recall@1, encoder alone": recall(evidence.concepts.tolist(), split.answers, 1),
        "recall@5, encoder alone": recall(evidence.concepts.tolist(), split.answers, 5),
        "recall@1": recall(ranked.tolist(), split.answers, 1),
        "recall@5": recall(ranked.tolist(), split.answers, 5),
    }
    found |= {f"precision at coverage {c}": float(right[sure[: round(c * len(sure))]].mean()) for c in COVERAGES}
    return found | {
        "mentions": len(split.queries) / (weighed - indexed),
        "training": trained - began,
        "vectors of all names": indexed - trained,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("development", "test"), default="development")
    parser.add_argument("--seeds", default="0")
    chosen = parser.parse_args()
    concepts = list(KnowledgeBase.build(HpoSource()).concepts)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    splits = {seed: held_out(concepts, seed, chosen.part) for seed in seeds}
    found = [measured(splits[seed], seed) for seed in seeds]
    told = f"{chosen.part} concepts, {len(splits[seeds[0]].queries):,} queries, {len(seeds)} seeds"
    units = {"mentions": "mentions/CPU-s", "training": "CPU-s", "vectors of all names": "CPU-s"}
    rows: list[dict[str, object]] = []
    for name in found[0]:
        value = mean(one[name] for one in found)
        rows.append({"figure": f"{name}, {told}", "value": round(value, 4), "unit": units.get(name, "fraction")})
        if name in TARGETS:
            rows[-1] |= {"target": TARGETS[name], "met": value >= TARGETS[name]}
    write("normalisation", rows)


if __name__ == "__main__":
    main()
