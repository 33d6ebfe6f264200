"""From the predictions of several systems to rows of the summary, paired comparisons and the confusion matrix.

Every system must have answered the same rows in the same order; anything else raises instead of being compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core.api import Example, Metric, Task
from r1core.evaluate import free_text, metrics
from r1core.evaluate.predictions import Prediction, normalise_answer
from r1core.evaluate.summary import CONSTRAINED, Comparison, Row, row

TOP = 3
"""k of the top-k figure."""

Answers = Mapping[str, Sequence[Prediction]]
"""Predictions by system."""


def evaluate(
    task: Task,
    predictions: Answers,
    *,
    examples: Sequence[Example] = (),
    plugin_metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    resamples: int = metrics.RESAMPLES,
) -> list[Row]:
    """Return the rows of every system.

    A task with choices: `accuracy`, `macro_f1`, `top_3` (where there are more than three labels) and `answered`
    (share of free-running answers that are a label at all), for the free-running system and as
    `system+constrained`. A free-text task: `exact_match`, `token_f1`, `rouge_l` and `plugin_metrics`, which are
    told the `examples` of the rows.

    Raises
    ------
    ValueError : when systems answered different rows, or a gold answer is no label.
    PluginError : when a plugin's metric fails.
    """
    _same_rows(predictions)
    if not task.choices:
        return _free_text(task, predictions, examples, plugin_metrics or {}, seed)
    rows: list[Row] = []
    for system, answered in predictions.items():
        clusters, gold, free = [p.cluster for p in answered], [p.gold for p in answered], labels_of(task, answered)
        top = metrics.mean(_in_top(task, answered), clusters) if len(task.choices) > TOP else None
        for name, labels in ((system, free), (system + CONSTRAINED, _limited(answered))):
            rows.append(row(task.name, name, "accuracy", metrics.accuracy(gold, labels, clusters)))
            f1 = metrics.macro_f1(gold, labels, clusters, seed=seed, resamples=resamples)
            rows.append(row(task.name, name, "macro_f1", f1))
            if top is not None:
                rows.append(row(task.name, name, f"top_{TOP}", top))
        valid = metrics.mean([label is not None for label in free], clusters)
        rows.append(row(task.name, system, "answered", valid))
    return rows


def compare(
    task: Task,
    predictions: Answers,
    system: str,
    against: str,
    *,
    seed: int = 0,
    resamples: int = metrics.RESAMPLES,
) -> list[Comparison]:
    """Return each figure of `system` minus that of `against`, with its paired, clustered standard error.

    Rows that both get right or both get wrong cancel, so this error is smaller than that of two separate figures.
    Either name may end in `+constrained`. Positive means that `system` is better.
    """
    _same_rows(predictions)
    first, second = (predictions[name.removesuffix(CONSTRAINED)] for name in (system, against))
    gold, clusters = [p.gold for p in first], [p.cluster for p in first]
    if not task.choices:
        found = {
            name: metrics.mean(_each(metric, first) - _each(metric, second), clusters)
            for name, metric in free_text.BUILT_IN.items()
        }
    else:
        ours, theirs = _named(task, system, first), _named(task, against, second)
        found = {
            "accuracy": metrics.mean(metrics.correct(gold, ours) - metrics.correct(gold, theirs), clusters),
            "macro_f1": metrics.macro_f1_difference(gold, ours, theirs, clusters, seed=seed, resamples=resamples),
        }
        if len(task.choices) > TOP:
            found[f"top_{TOP}"] = metrics.mean(_in_top(task, first) - _in_top(task, second), clusters)
    return [Comparison(task.name, system, against, name, e.value, e.se, e.n) for name, e in found.items()]


def labels_of(task: Task, predictions: Sequence[Prediction]) -> list[str | None]:
    """Return the label that each free-running answer is, or None where it is none."""
    return [normalise_answer(p.text, task.choices) for p in predictions]


def _named(task: Task, system: str, predictions: Sequence[Prediction]) -> list[str | None]:
    return _limited(predictions) if system.endswith(CONSTRAINED) else labels_of(task, predictions)


def _limited(predictions: Sequence[Prediction]) -> list[str | None]:
    return [p.constrained for p in predictions]


def _in_top(task: Task, predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    position = {label: i for i, label in enumerate(task.choices)}
    for p in predictions:
        if p.gold not in position:
            raise ValueError(f"example {p.example_id!r}: gold answer {p.gold!r} is no label of task {task.name!r}")
    return metrics.in_top_k([position[p.gold] for p in predictions], [p.scores for p in predictions], TOP)


def _each(metric: Callable[[str, str], float], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    return np.array([metric(p.text, p.gold) for p in predictions])


def _free_text(
    task: Task, predictions: Answers, examples: Sequence[Example], plugin_metrics: Mapping[str, Metric], seed: int
) -> list[Row]:
    rows: list[Row] = []
    for system, answered in predictions.items():
        clusters = [p.cluster for p in answered]
        for name, metric in free_text.BUILT_IN.items():
            rows.append(row(task.name, system, name, metrics.mean(_each(metric, answered), clusters)))
        if plugin_metrics and [e.id for e in examples] != [p.example_id for p in answered]:
            raise ValueError("plugin metrics need the examples of the same rows, in the same order")
        texts, gold = [p.text for p in answered], [p.gold for p in answered]
        for name, plugin_metric in plugin_metrics.items():
            figure = free_text.plugin_estimate(name, plugin_metric, texts, gold, examples, clusters, seed=seed)
            rows.append(row(task.name, system, name, figure))
    return rows


def _same_rows(predictions: Answers) -> None:
    reference: list[tuple[str, str, str]] | None = None
    for system, answered in predictions.items():
        rows = [(p.example_id, p.gold, p.cluster) for p in answered]
        if reference is not None and rows != reference:
            raise ValueError(f"system {system!r} did not answer the same rows as the others")
        reference = rows


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of answers by gold label, C = labels.

    `matrix` : (C, C), rows gold, columns answered. `unanswered` : (C,), answers of that gold label that are no label.
    """

    labels: tuple[str, ...]
    matrix: NDArray[np.int64]
    unanswered: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One label's figures; `n` counts its gold rows. A figure whose denominator is zero is 0, as in scikit-learn."""

    label: str
    n: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """How often one label was taken for another; `share` is of the gold label's rows."""

    gold: str
    answered: str
    count: int
    share: float


def confusion(gold: Sequence[str], answered: Sequence[str | None], labels: Sequence[str]) -> Confusion:
    """Count answers by gold label; None, and an answer outside `labels`, is unanswered."""
    position = {label: i for i, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for g, a in zip(gold, answered, strict=True):
        matrix[position[g], len(labels) if a is None else position.get(a, len(labels))] += 1
    return Confusion(tuple(labels), matrix[:, :-1].copy(), matrix[:, -1].copy())


def confusion_of(task: Task, predictions: Answers, system: str) -> Confusion:
    """Return the confusion matrix of one system, by its name with or without `+constrained`."""
    answered = predictions[system.removesuffix(CONSTRAINED)]
    return confusion([p.gold for p in answered], _named(task, system, answered), task.choices)


def worst_confusions(counts: Confusion, top: int = 10) -> list[Mistake]:
    """Return the `top` most frequent mistakes, most frequent first, equal ones in the order of the labels."""
    totals = counts.matrix.sum(axis=1) + counts.unanswered
    mistakes = [
        Mistake(gold, answered, int(counts.matrix[i, j]), float(counts.matrix[i, j] / totals[i]))
        for i, gold in enumerate(counts.labels)
        for j, answered in enumerate(counts.labels)
        if i != j and counts.matrix[i, j] > 0
    ]
    return sorted(mistakes, key=lambda m: -m.count)[:top]


def per_class(counts: Confusion) -> list[ClassRow]:
    """Return each label's row count, precision, recall and F1, in the order of the labels."""
    hits = counts.matrix.diagonal().astype(np.float64)
    gold = counts.matrix.sum(axis=1) + counts.unanswered
    answered = counts.matrix.sum(axis=0)
    figures = zip(
        counts.labels,
        gold,
        hits / np.maximum(answered, 1),
        hits / np.maximum(gold, 1),
        2 * hits / np.maximum(gold + answered, 1),
        strict=True,
    )
    return [ClassRow(label, int(n), float(p), float(r), float(f)) for label, n, p, r, f in figures]
