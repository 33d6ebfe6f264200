"""The baseline to beat on the medical task: TF-IDF n-grams and a linear model, tuned on validation, one test pass.

Trained on the same rows as the adapted model. Standard errors are clustered by three-character category.

    OMP_NUM_THREADS=1 python benchmarks/tfidf_baseline.py
"""

from __future__ import annotations

import sys
import time
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import record

from r1core.api import DatasetSource, Example, UserError
from r1core.evaluate import baselines, suite, summary
from r1core.evaluate.predictions import from_scores, gold_of

CPU_TARGET = 90.0  # CPU-seconds: a fifth of what training may cost
METRICS = ("accuracy", "macro_f1", "top_3")


def medical_source() -> DatasetSource:
    """The data set of the medical domain's recipe, found as any installed domain is."""
    found = list(entry_points(group="r1core.domains", name="medical"))
    if not found:
        raise UserError("the medical domain is not installed", fix="pip install ./domains/medical")
    domain = found[0].load()
    named = tomllib.loads(domain.recipe.read_text(encoding="utf-8"))["data"]["source"]
    return next(source for source in domain.sources if source.name == named)


def main() -> None:
    source = medical_source()
    (task,) = source.tasks.values()
    splits: dict[str, list[Example]] = {
        "train": list(source.read("train")), "val": list(source.read("val")), "test": list(source.read("test"))
    }  # fmt: skip
    texts = {name: [baselines.user_text(e) for e in rows] for name, rows in splits.items()}
    gold = {name: [gold_of(e, task.choices) for e in rows] for name, rows in splits.items()}

    started = time.process_time()
    result = baselines.tfidf(
        texts["train"], gold["train"], texts["val"], gold["val"], texts["test"], labels=task.choices
    )
    cpu_seconds = time.process_time() - started

    test = splits["test"]
    constant = baselines.majority(gold["train"], len(test), labels=task.choices)
    systems = {"majority": from_scores(task, test, constant), "tfidf": from_scores(task, test, result.scores)}
    figures = suite.evaluate(task, systems)
    chosen = f"{result.features} n-grams, {result.classifier}, C = {result.c:g}"
    categories = len({p.cluster for p in systems["tfidf"]})
    rows: list[dict[str, object]] = [
        {
            "figure": f"TF-IDF, validation accuracy ({chosen}; the best of the grid, so slightly flattered)",
            "value": round(result.validation_accuracy, 4),
            "unit": f"fraction of {len(splits['val'])} rows",
        }
    ]
    for metric in METRICS:
        ours, floor = summary.find(figures, "tfidf", metric), summary.find(figures, "majority", metric)
        assert ours is not None
        assert floor is not None
        rows.append(
            {
                "figure": f"TF-IDF, test {metric}",
                "value": round(ours.value, 4),
                "unit": f"fraction of {ours.n} rows, standard error {ours.se:.4f} over {categories} categories",
                "peer": f"majority class: {floor.value:.4f}",
            }
        )
    rows.append(
        {
            "figure": f"TF-IDF, tuning and fitting on {len(splits['train'])} rows",
            "value": round(cpu_seconds, 1),
            "unit": "CPU-seconds",
            "target": CPU_TARGET,
            "met": cpu_seconds <= CPU_TARGET,
        }
    )
    record.write("tfidf_baseline", rows)


if __name__ == "__main__":
    main()
