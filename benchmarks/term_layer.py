"""Does the term layer help? The same training without it, with it, and with vectors that say nothing of their concept.

    r1core umls train                                             # once: the encoder
    python benchmarks/term_layer.py --part val                    # what choices were made on
    python benchmarks/term_layer.py                               # on the test, once
    python benchmarks/term_layer.py icd10 --arms off,encoder --seeds 0

Arms (`term_layer_arm.py`), tasks and what an arm may see of a held-out row (`term_layer_tasks.py`). All arms of a seed
see the same rows in the same order from the same start; a difference is of the same row under the same seed. Standard
errors are of the mean over seeds, clustered as the task says. The share of rows with a linked concept is told, and the
difference on those rows alone. A run is kept in `--runs`, so a second call only reads; `--jobs` train side by side, for
a GPU, which rows this short leave idle. Research, not clinical advice.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from medical_tasks import Row, on_machine
from numpy.typing import NDArray
from record import write
from term_layer_tasks import SHARES, TASKS, Layer, layers_of, prepare

from r1core.api import Example, Message
from r1core.cli.common import Terminal
from r1core.data import codec
from r1core.decode.session import Session
from r1core.decode.values import Decoding
from r1core.evaluate import metrics
from r1core.evaluate.predictions import cluster_of
from r1core.evaluate.stage import answers
from r1core.pipeline import compute_of, run_to
from r1core.selection import Selection
from r1core.workbench import Workbench, open_bench

PLUGIN = Path(__file__).parent / "term_layer_arm.py"
ARMS = ("off", "learned", "encoder", "permuted")
PAIRS = (("encoder", "off"), ("encoder", "permuted"), ("learned", "off"))
CHOSEN = {
    "icd10": Layer("block:3", 1e-2),
    "diagnosis": Layer("embedding", 1e-2),
    "layperson": Layer("embedding", 1e-3),
}
"""Of the layers that change answers, the one that is best for the encoder's vectors on `val`; all arms get it.

In front of the trained blocks, at a rate of 0.001, the layer changed at most two answers of `val` in a thousand.
"""
UNSEEN = -1  # the place of an answer that is not among the candidates


@dataclass(frozen=True)
class Job:
    """One training and what is asked of it."""

    task: str
    arm: str
    layer: Layer
    seed: int
    part: str
    runs: Path

    @property
    def folder(self) -> Path:
        """The run's directory; without a layer, whatever the layer is said to be."""
        layer = "" if self.arm == "off" else f"-{self.layer.site.replace(':', '')}-{self.layer.rate:g}"
        return self.runs / "term_layer" / f"{self.task}-{self.arm}{layer}-{self.seed}"

    @property
    def prepared(self) -> Path:
        """Where the task's links, vectors and questions are."""
        return self.runs / "term_layer" / self.task

    @property
    def scored(self) -> Path:
        """What came of it: for each question its cluster, whether a concept is linked, the answer's place from 0."""
        return self.folder / f"scored_{self.part}.json"


def measure(job: Job) -> None:
    """Train, or take up what is there; ask, and write the answer's place among what could be said."""
    if job.scored.exists():
        return
    task, section = TASKS[job.task], "plugins.term_layer_arm"
    own = {"folder": str(job.prepared.resolve()), "arm": job.arm, "site": job.layer.site}
    told = (*(f'{section}.{key}="{value}"' for key, value in own.items()), f"run.seed={job.seed}")
    training = (f"train.layer_learning_rate={job.layer.rate}", 'model.precision="fp32"', 'train.compile="off"')
    recipe = PLUGIN.parent.parent / f"domains/medical/r1core_medical/tasks/{task.recipe}.toml" if task.recipe else None
    bench = open_bench(Selection("medical", recipe, (*task.sets, *told, *training), job.folder, files=(PLUGIN,)))
    run_to(bench, "train", Terminal())
    job.scored.write_text(json.dumps(asked(bench, job)), "utf-8")
    gc.collect()


def asked(bench: Workbench, job: Job) -> list[tuple[str, bool, int]]:
    """Ask the trained model the questions of one part."""
    session = Session(bench, compute_of(bench), adapted=True)
    if job.task == "icd10":
        (task,) = bench.tasks.values()
        rows = list(codec.read(bench.run.split(job.part), bench.chain.kinds))
        said = answers(session, task, rows, job.arm, lambda *done: None)
        return [
            (cluster_of(row, task), bool(row.spans), place(one.scores, task.choices.index(one.gold)))
            for row, one in zip(rows, said, strict=True)
        ]
    found: list[tuple[str, bool, int]] = []
    for name, text, names, right, cluster in json.loads((job.prepared / f"asked_{job.part}.json").read_text("utf-8")):
        example = bench.chain.annotate(Example(name, (Message("user", text),), job.task))
        stands = UNSEEN
        if right >= 0:
            _, scores = session.answer_and_score([example], Decoding(1), session.label_tree(names))
            stands = place(scores[0], right)
        found.append((cluster, bool(example.spans), stands))
    return found


def place(scores: Sequence[float] | NDArray[np.float64], right: int) -> int:
    """The place of the right one by its score, from 0."""
    return int((np.argsort(-np.asarray(scores), kind="stable") == right).argmax())


def rows_of(task: str, layer: Layer, jobs: Mapping[tuple[str, int], Job], seeds: Sequence[int]) -> list[Row]:
    """The table of one task and one layer."""
    told = {key: json.loads(job.scored.read_text("utf-8")) for key, job in jobs.items()}
    first, one_job = next(iter(told.values())), next(iter(jobs.values()))
    part = one_job.part
    clusters, linked = [row[0] for row in first], np.array([row[1] for row in first])
    right = {key: np.array([row[2] == 0 for row in rows], float) for key, rows in told.items()}
    head = f"{task}, {part}, layer at {layer}: "
    shares = json.loads((one_job.prepared / SHARES).read_text("utf-8"))
    rows: list[Row] = [
        {"figure": f"{task}, {split}: questions with a linked concept", "value": round(share, 4), "unit": "fraction"}
        for split, share in shares.items()
    ]

    def told_of(name: str, values: NDArray[np.float64], of: Sequence[str], each: Sequence[float]) -> Row:
        estimate = metrics.mean(values, of)
        by_seed = ", ".join(f"{value:.4f}" for value in each)
        unit = f"fraction of {estimate.n} questions, standard error {estimate.se:.4f}; by seed {by_seed}"
        return {"figure": head + name, "value": round(estimate.value, 4), "unit": unit}

    arms = list(dict.fromkeys(arm for arm, _ in jobs))
    for arm in arms:
        each = [right[arm, seed] for seed in seeds]
        rows.append(told_of(f"{arm}, first answer right", np.mean(each, 0), clusters, [float(e.mean()) for e in each]))
    for one, other in PAIRS:
        if one in arms and other in arms:
            gained = [right[one, seed] - right[other, seed] for seed in seeds]
            for name, kept in (("", np.ones_like(linked)), (", questions with a linked concept", linked)):
                if kept.any() and (not name or not linked.all()):
                    of = [cluster for cluster, keep in zip(clusters, kept, strict=True) if keep]
                    each = [g[kept] for g in gained]
                    means = [float(e.mean()) for e in each]
                    rows.append(told_of(f"{one} minus {other} (paired){name}", np.mean(each, 0), of, means))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="?", default=",".join(TASKS))
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    chosen = parser.parse_args()
    tasks, seeds = chosen.tasks.split(","), [int(seed) for seed in chosen.seeds.split(",")]
    layers = [(t, layer) for t in tasks for layer in (layers_of(t) if chosen.part == "val" else [CHOSEN[t]])]
    for task in tasks:
        prepare(task, chosen.runs / "term_layer" / task)
    tables = {
        (task, layer): {
            (arm, seed): Job(task, arm, layer, seed, chosen.part, chosen.runs)
            for seed in seeds
            for arm in chosen.arms.split(",")
        }
        for task, layer in layers
    }
    work = {job.folder: job for seed in seeds for jobs in tables.values() for job in jobs.values() if job.seed == seed}
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(measure, work.values()))
    rows = [row for (task, layer), jobs in tables.items() for row in rows_of(task, layer, jobs, seeds)]
    if chosen.part == "val":
        print(*(f"{row['figure']}: {row['value']} {row['unit']}" for row in rows), sep="\n")
    else:
        write("term_layer", on_machine(rows))


if __name__ == "__main__":
    main()
