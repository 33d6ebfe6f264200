"""Metrics against naive loops, closed forms, scikit-learn and simulation."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, top_k_accuracy_score

from r1core.evaluate import metrics

LABELS = "abcd"
rows = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None]), st.integers(0, 5)), min_size=2, max_size=40
)


@given(rows)
def test_clustered_error_equals_the_sum_over_all_pairs_of_rows_that_share_a_cluster(data):
    hits = [float(g == p) for g, p, _ in data]
    clusters = [c for *_, c in data]
    n, g = len(data), len(set(clusters))
    average = sum(hits) / n
    total = 0.0
    for i in range(n):
        for j in range(n):
            if clusters[i] == clusters[j]:
                total += (hits[i] - average) * (hits[j] - average)
    found = metrics.accuracy([d[0] for d in data], [d[1] for d in data], clusters)
    assert (found.n, found.clusters) == (n, g)
    assert found.value == pytest.approx(average)
    if g == 1:
        assert math.isnan(found.se)
    else:
        # Rounding may leave the sum a hair below zero where the clusters cancel exactly.
        assert found.se == pytest.approx(math.sqrt(max(total, 0.0) * g / (g - 1)) / n, abs=1e-8)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_without_clusters_the_error_is_that_of_a_plain_mean(values):
    found = metrics.mean(values)
    assert found.value == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert found.se == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)


def test_repeating_every_row_inside_its_cluster_adds_no_certainty():
    hits, clusters = [1, 0, 1, 1, 0, 1], [0, 0, 1, 2, 2, 3]
    once, thrice = metrics.mean(hits, clusters), metrics.mean(hits * 3, clusters * 3)
    assert thrice.se == pytest.approx(once.se)
    assert metrics.mean(hits * 3).se < once.se


def _clustered_sample(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """About 500 rows in 80 clusters of unequal size; each cluster has a difficulty of its own."""
    codes = np.repeat(np.arange(80), generator.integers(1, 12, size=80))
    return (generator.random(len(codes)) < generator.beta(3, 1, size=80)[codes]).astype(float), codes


def test_the_95_percent_interval_holds_the_truth_in_95_of_100_samples_and_the_naive_one_does_not():
    generator, truth, covered, naive = np.random.default_rng(0), 0.75, [], []
    for _ in range(1500):
        hits, codes = _clustered_sample(generator)
        for tally, clusters in ((covered, codes.tolist()), (naive, None)):
            low, high = metrics.mean(hits, clusters).interval()
            tally.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.965
    assert np.mean(naive) < 0.88


def test_the_bootstrap_error_of_macro_f1_is_the_spread_over_fresh_samples():
    generator, values, errors = np.random.default_rng(1), [], []
    for i in range(150):
        hits, codes = _clustered_sample(generator)
        gold = generator.integers(0, 4, size=80)[codes]
        predicted = np.where(hits == 1, gold, (gold + 1) % 4)
        texts = [list(map(str, column)) for column in (gold, predicted)]
        values.append(metrics.macro_f1(*texts, codes.tolist(), resamples=2).value)
        if i < 20:
            errors.append(metrics.macro_f1(*texts, codes.tolist(), seed=i, resamples=500).se)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@given(rows)
@settings(deadline=None)
def test_macro_f1_equals_scikit_learn_over_the_labels_that_occur(data):
    gold, predicted = [d[0] for d in data], [d[1] or "none" for d in data]
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert metrics.macro_f1(gold, [d[1] for d in data], resamples=2).value == pytest.approx(expected)


@given(rows, st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_weighted_macro_f1_is_that_of_the_repeated_rows(data, seed):
    codes = metrics.cluster_codes([d[2] for d in data], len(data))
    (weights,) = metrics.resample(codes, seed=seed, resamples=1)
    assert weights.sum() == len(weights)
    repeated = [d for d, code in zip(data, codes, strict=True) for _ in range(int(weights[code]))]
    gold, predicted = [d[0] for d in repeated], [d[1] or "none" for d in repeated]
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    found = metrics.MacroF1([d[0] for d in data], [d[1] for d in data])(weights[codes])
    assert found == pytest.approx(expected)


def test_the_bootstrap_repeats_itself_with_its_seed_only():
    gold, predicted = list("aabbccdd") * 5, list("abbbcadd") * 5
    first, again, other = (metrics.macro_f1(gold, predicted, seed=s, resamples=500) for s in (3, 3, 4))
    assert first == again
    assert first.se != other.se
    assert first.se == pytest.approx(other.se, rel=0.2)


def test_paired_macro_f1_of_a_system_with_itself_is_certainly_nothing():
    gold, predicted = list("aabbccdd") * 5, list("abbbcadd") * 5
    same = metrics.macro_f1_difference(gold, predicted, predicted, resamples=50)
    assert (same.value, same.se) == (0.0, 0.0)
    better = metrics.macro_f1_difference(gold, gold, predicted, resamples=50)
    assert better.value == pytest.approx(1 - metrics.macro_f1(gold, predicted, resamples=2).value)


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_top_k_equals_a_naive_ranking_in_which_earlier_columns_win_ties(k, seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, size=(20, 5)).astype(float)
    gold = generator.integers(0, 5, size=20)
    naive = [
        g in sorted(range(5), key=lambda c, row=row: (-row[c], c))[:k] for g, row in zip(gold, scores, strict=True)
    ]
    assert metrics.top_k(gold, scores, k).value == pytest.approx(np.mean(naive))


def test_top_k_equals_scikit_learn_without_ties():
    generator = np.random.default_rng(5)
    scores, gold = generator.normal(size=(200, 6)), generator.integers(0, 6, size=200)
    expected = top_k_accuracy_score(gold, scores, k=3, labels=range(6))
    assert metrics.top_k(gold, scores, 3).value == pytest.approx(expected)


def test_top_1_is_the_accuracy_of_the_best_label():
    generator = np.random.default_rng(6)
    scores, gold = generator.integers(0, 3, size=(100, 4)), generator.integers(0, 4, size=100)
    accuracy = metrics.accuracy(list(map(str, gold)), list(map(str, scores.argmax(axis=1))))
    assert metrics.top_k(gold, scores, 1) == accuracy


def test_the_jackknife_of_a_mean_is_its_closed_form_when_each_group_is_one_cluster():
    hits, clusters = np.random.default_rng(2).random(60), [i // 3 for i in range(60)]
    jackknifed = metrics.jackknife(lambda rows: float(hits[rows].mean()), clusters, 60, groups=20)
    closed = metrics.mean(hits, clusters)
    assert jackknifed.value == pytest.approx(closed.value)
    assert jackknifed.se == pytest.approx(closed.se)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mean([]), "no rows"),
        (lambda: metrics.mean([1.0, math.nan]), "not finite"),
        (lambda: metrics.mean([1.0, 0.0], ["a"]), "one cluster for each of 2 rows, found 1"),
        (lambda: metrics.top_k([0], [[math.nan, 1.0]], 1), "NaN"),
        (lambda: metrics.top_k([0, 1], [[0.0, 1.0]], 1), "expected scores of shape"),
    ],
)
def test_what_cannot_be_measured_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
