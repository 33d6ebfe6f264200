"""From predictions to rows, comparisons and the confusion matrix, against counts done by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from r1core.api import Example, Task
from r1core.evaluate import metrics, suite
from r1core.evaluate.predictions import Prediction
from r1core.evaluate.summary import find

LABELS = ("Heart", "Eye", "Nerve", "Skin", "Toe")
TASK = Task("specialty", choices=LABELS, cluster="category")


def answers(seed: int, skill: float, n: int = 300, sloppy: float = 0.1) -> list[Prediction]:
    """One system's answers to the same 300 rows; `sloppy` of its free-running answers are no label."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    found = []
    for i in range(n):
        gold = int(shared.integers(0, 4))  # `Toe` is never right
        scores = own.normal(size=5)
        scores[gold] += skill
        best = LABELS[int(scores.argmax())]
        text = "the " + best if own.random() < sloppy else best.lower() + "."
        found.append(Prediction(str(i), LABELS[gold], str(i // 6), text, best, tuple(scores.tolist())))
    return found


SYSTEMS = {"tfidf": answers(1, 1.0, sloppy=0.0), "adapted": answers(2, 2.0)}
ROWS = suite.evaluate(TASK, SYSTEMS, resamples=50)


def test_every_system_is_reported_free_running_and_constrained():
    names = [(r.system, r.metric) for r in ROWS if r.metric != "answered"]
    systems = ("tfidf", "tfidf+constrained", "adapted", "adapted+constrained")
    assert names == [(s, m) for s in systems for m in ("accuracy", "macro_f1", "top_3")]
    assert {r.n for r in ROWS} == {300}
    assert {r.task for r in ROWS} == {"specialty"}


def test_values_are_the_counts_done_by_hand():
    adapted = SYSTEMS["adapted"]
    free = sum(p.text == p.gold.lower() + "." for p in adapted) / 300
    constrained = sum(p.constrained == p.gold for p in adapted) / 300
    top = sum(p.gold in [LABELS[i] for i in np.argsort(p.scores)[::-1][:3]] for p in adapted) / 300
    labels = sum(not p.text.startswith("the ") for p in adapted) / 300
    assert find(ROWS, "adapted", "accuracy").value == pytest.approx(free)
    assert find(ROWS, "adapted+constrained", "accuracy").value == pytest.approx(constrained)
    assert find(ROWS, "adapted", "top_3").value == pytest.approx(top)
    assert find(ROWS, "adapted", "answered").value == pytest.approx(labels)
    assert free < constrained


def test_a_baseline_has_the_same_figures_with_and_without_constraint():
    for metric in ("accuracy", "macro_f1", "top_3"):
        free, limited = find(ROWS, "tfidf", metric), find(ROWS, "tfidf+constrained", metric)
        assert (free.value, free.se) == (limited.value, limited.se)


def test_errors_are_clustered():
    hits = [p.constrained == p.gold for p in SYSTEMS["adapted"]]
    clustered = metrics.mean(hits, [i // 6 for i in range(300)])
    assert find(ROWS, "adapted+constrained", "accuracy").se == pytest.approx(clustered.se)


def test_few_labels_have_no_top_3():
    task = Task("yes or no", choices=("yes", "no"))
    rows = suite.evaluate(
        task, {"base": [Prediction(str(i), "yes", str(i), "yes", "yes", (0.0, -1.0)) for i in range(4)]}
    )
    assert {r.metric for r in rows} == {"accuracy", "macro_f1", "answered"}


def test_a_paired_difference_is_the_difference_of_the_values_with_the_error_of_the_row_differences():
    found = {c.metric: c for c in suite.compare(TASK, SYSTEMS, "adapted+constrained", "tfidf", resamples=50)}
    for metric in ("accuracy", "macro_f1", "top_3"):
        expected = find(ROWS, "adapted+constrained", metric).value - find(ROWS, "tfidf", metric).value
        assert found[metric].value == pytest.approx(expected)
        assert (found[metric].system, found[metric].against) == ("adapted+constrained", "tfidf")
    gaps = [
        (a.constrained == a.gold) - (b.constrained == b.gold)
        for a, b in zip(SYSTEMS["adapted"], SYSTEMS["tfidf"], strict=True)
    ]
    residuals = np.array(gaps).reshape(50, 6).sum(axis=1) - 6 * np.mean(gaps)
    assert found["accuracy"].se == pytest.approx(np.sqrt(50 / 49 * (residuals**2).sum()) / 300)


def test_a_system_compared_with_itself_differs_by_exactly_nothing():
    for row in suite.compare(TASK, SYSTEMS, "tfidf", "tfidf+constrained", resamples=20):
        assert (row.value, row.se) == (0.0, 0.0)


def test_systems_that_answered_different_rows_are_not_compared():
    with pytest.raises(ValueError, match="system 'adapted' did not answer the same rows"):
        suite.evaluate(TASK, {**SYSTEMS, "adapted": SYSTEMS["adapted"][::-1]})


def test_a_gold_answer_that_is_no_label_is_named():
    odd = [Prediction("x", "Liver", "c", "Eye", "Eye", (0.0,) * 5)]
    with pytest.raises(ValueError, match="example 'x': gold answer 'Liver'"):
        suite.evaluate(TASK, {"base": odd})


def test_the_confusion_matrix_equals_scikit_learn_and_counts_what_is_no_label():
    counts = suite.confusion_of(TASK, SYSTEMS, "adapted")
    gold = [p.gold for p in SYSTEMS["adapted"]]
    free = [label or "none" for label in suite.labels_of(TASK, SYSTEMS["adapted"])]
    expected = confusion_matrix(gold, free, labels=[*LABELS, "none"])
    np.testing.assert_array_equal(counts.matrix, expected[:5, :5])
    np.testing.assert_array_equal(counts.unanswered, expected[:5, 5])
    assert counts.unanswered.sum() > 0
    assert suite.confusion_of(TASK, SYSTEMS, "adapted+constrained").unanswered.sum() == 0


def test_figures_by_label_equal_scikit_learn():
    gold = [p.gold for p in SYSTEMS["adapted"]]
    free = [label or "none" for label in suite.labels_of(TASK, SYSTEMS["adapted"])]
    rows = suite.per_class(suite.confusion_of(TASK, SYSTEMS, "adapted"))
    expected = precision_recall_fscore_support(gold, free, labels=LABELS, zero_division=0)
    assert [r.label for r in rows] == list(LABELS)
    for found, column in zip(
        zip(*[(r.precision, r.recall, r.f1, r.n) for r in rows], strict=True), expected, strict=True
    ):
        np.testing.assert_allclose(found, column)


def test_the_worst_confusions_come_first():
    gold, answered = list("aaaabbc"), ["a", "b", "b", None, "a", "b", "c"]
    worst = suite.worst_confusions(suite.confusion(gold, answered, ["a", "b", "c"]))
    assert [(m.gold, m.answered, m.count, m.share) for m in worst] == [("a", "b", 2, 0.5), ("b", "a", 1, 0.5)]


class Shouting:
    """Share of answers in capitals."""

    name = "shouting"
    higher_is_better = False

    def __call__(self, predictions, references, examples):
        return sum(p.isupper() for p in predictions) / len(predictions)


def test_a_free_text_task_reports_text_metrics_and_those_of_plugins():
    task = Task("advice")
    rows = [Prediction(str(i), "rest now", str(i), "REST" if i % 2 else "rest now") for i in range(40)]
    examples = [Example(str(i), (), "advice") for i in range(40)]
    found = suite.evaluate(task, {"base": rows}, examples=examples, plugin_metrics={"ours/shouting": Shouting()})
    values = {r.metric: r.value for r in found}
    assert values == pytest.approx({"exact_match": 0.5, "token_f1": 5 / 6, "rouge_l": 5 / 6, "ours/shouting": 0.5})
    assert all(r.se > 0 for r in found)
    assert {c.metric for c in suite.compare(task, {"a": rows, "b": rows}, "a", "b")} == {
        "exact_match",
        "token_f1",
        "rouge_l",
    }
    with pytest.raises(ValueError, match="need the examples of the same rows"):
        suite.evaluate(task, {"base": rows}, plugin_metrics={"ours/shouting": Shouting()})
