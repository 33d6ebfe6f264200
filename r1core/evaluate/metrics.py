"""Accuracy, top-k and macro-F1, each with a standard error that allows for rows that resemble each other.

Rows of one cluster (here: of one disease category) are not independent, so errors are clustered: the clusters are
the sample. Legend: N = rows, G = clusters, C = labels, R = bootstrap resamples.

Means (accuracy, top-k, differences) use the linearised variance of a ratio estimator over clusters with the factor
G / (G - 1): W. G. Cochran, "Sampling Techniques", 3rd ed., Wiley 1977, ch. 6; for evaluations E. Miller, "Adding Error
Bars to Evals", arXiv:2411.00640. Macro-F1 is no mean of rows and uses the cluster bootstrap: B. Efron and
R. J. Tibshirani, "An Introduction to the Bootstrap", 1993.

Not covered: the variation between training seeds, which only further runs can show.
NaN policy: a standard error from fewer than two clusters is NaN; NaN in the input raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
"""Bootstrap resamples: the error of a standard error from R resamples is about 1 / sqrt(2R), 2 % here."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and how far it can be trusted.

    `value` and `se` are fractions, not percent; `n` counts rows, `clusters` the independent groups among them.
    """

    value: float
    se: float
    n: int
    clusters: int

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return `value - z * se` and `value + z * se`; 1.96 gives 95 % under normality."""
        return self.value - z * self.se, self.value + z * self.se


def cluster_codes(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """Number the clusters 0..G-1 in order of appearance: (N,); None makes every row its own cluster.

    Raises
    ------
    ValueError : when there are no rows, or not one cluster a row.
    """
    if n == 0:
        raise ValueError("no rows to evaluate")
    if clusters is None:
        return np.arange(n, dtype=np.int64)
    if len(clusters) != n:
        raise ValueError(f"expected one cluster for each of {n} rows, found {len(clusters)}")
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(c, len(numbers)) for c in clusters), dtype=np.int64, count=n)


def mean(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean of a number a row, (N,), with its cluster-robust standard error.

    With residual sums `e_g = sum over rows i of cluster g of (y_i - mean)`:
    `se**2 = G / (G - 1) * sum(e_g**2) / N**2`. Clusters of one row give the usual `s / sqrt(N)`.

    Raises
    ------
    ValueError : for no rows or a value that is not finite.
    """
    y = np.asarray(values, dtype=np.float64)
    codes = cluster_codes(clusters, len(y))
    if not np.isfinite(y).all():
        raise ValueError("a value to average is not finite")
    value, count = float(y.mean()), int(codes.max()) + 1
    sums = np.bincount(codes, weights=y - value, minlength=count)
    se = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(y) if count > 1 else math.nan
    return Estimate(value, se, len(y), count)


def accuracy(
    gold: Sequence[str], predicted: Sequence[str | None], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Share of rows whose prediction equals the gold label; None (no valid answer) is wrong."""
    return mean(correct(gold, predicted), clusters)


def correct(gold: Sequence[str], predicted: Sequence[str | None]) -> NDArray[np.float64]:
    """Return 1.0 where prediction and gold label agree, else 0.0: (N,)."""
    return np.array([g == p for g, p in zip(gold, predicted, strict=True)], dtype=np.float64)


def in_top_k(gold: ArrayLike, scores: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return 1.0 where the gold column, (N,), is among the k highest of `scores`, (N, C), else 0.0: (N,).

    Among equal scores the earlier column ranks higher, as in `argmax`.

    Raises
    ------
    ValueError : for a NaN score or shapes that do not fit.
    """
    columns, table = np.asarray(gold, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(columns):
        raise ValueError(f"expected scores of shape ({len(columns)}, C), found {table.shape}")
    if np.isnan(table).any():
        raise ValueError("a score is NaN")
    own = table[np.arange(len(columns)), columns][:, None]
    earlier = np.arange(table.shape[1])[None, :] < columns[:, None]
    rank = (table > own).sum(axis=1) + ((table == own) & earlier).sum(axis=1)
    return (rank < k).astype(np.float64)


def top_k(gold: ArrayLike, scores: ArrayLike, k: int, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Share of rows whose gold column, (N,), is among the k highest of `scores`, (N, C)."""
    return mean(in_top_k(gold, scores, k), clusters)


def macro_f1(
    gold: Sequence[str],
    predicted: Sequence[str | None],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean, over the labels that occur in `gold`, of each label's F1; None is wrong for every label.

    A resample averages over the labels that occur in it. The standard error is the standard deviation over
    resamples of whole clusters, drawn from `seed`.
    """
    f1 = MacroF1(gold, predicted)
    codes = cluster_codes(clusters, len(gold))
    draws = [f1(weights[codes]) for weights in resample(codes, seed=seed, resamples=resamples)]
    return _bootstrapped(f1(np.ones(len(gold))), draws, codes)


def macro_f1_difference(
    gold: Sequence[str],
    first: Sequence[str | None],
    second: Sequence[str | None],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Macro-F1 of `first` minus that of `second` on the same rows; both see the same resamples (paired)."""
    one, other = MacroF1(gold, first), MacroF1(gold, second)
    codes = cluster_codes(clusters, len(gold))
    draws = [one(w[codes]) - other(w[codes]) for w in resample(codes, seed=seed, resamples=resamples)]
    ones = np.ones(len(gold))
    return _bootstrapped(one(ones) - other(ones), draws, codes)


def resample(codes: NDArray[np.int64], *, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """Yield, R times, how often each cluster was drawn when G clusters are drawn with replacement: (G,)."""
    generator, count = np.random.default_rng(seed), int(codes.max()) + 1
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, count, size=count), minlength=count).astype(np.float64)


def _bootstrapped(value: float, draws: Sequence[float], codes: NDArray[np.int64]) -> Estimate:
    count = int(codes.max()) + 1
    se = float(np.std(draws, ddof=1)) if count > 1 else math.nan
    return Estimate(value, se, len(codes), count)


class MacroF1:
    """Macro-F1 as a function of row weights, (N,), so that a resample costs three counts and no copy of rows."""

    def __init__(self, gold: Sequence[str], predicted: Sequence[str | None]) -> None:
        numbers = {label: i for i, label in enumerate(sorted(set(gold)))}
        self._labels = len(numbers)
        self._gold = np.array([numbers[g] for g in gold], dtype=np.int64)
        # Answers that are no gold label (another label, or None) share one column, which is then dropped.
        answers = [self._labels if p is None else numbers.get(p, self._labels) for p in predicted]
        self._predicted = np.array(answers, dtype=np.int64)
        if len(self._gold) != len(self._predicted):
            raise ValueError(f"{len(self._gold)} gold labels and {len(self._predicted)} predictions")
        self._hit = self._gold == self._predicted

    def __call__(self, weights: NDArray[np.float64]) -> float:
        """Return the macro-F1 of rows counted `weights` times each."""
        gold = np.bincount(self._gold, weights=weights, minlength=self._labels)
        answered = np.bincount(self._predicted, weights=weights, minlength=self._labels + 1)[: self._labels]
        hits = np.bincount(self._gold[self._hit], weights=weights[self._hit], minlength=self._labels)
        present = gold > 0
        return float((2 * hits[present] / (gold + answered)[present]).mean())


Statistic = Callable[[NDArray[np.int64]], float]
"""A figure computed from the rows with the given indices."""


def jackknife(
    statistic: Statistic, clusters: Sequence[Hashable] | None, n: int, *, seed: int = 0, groups: int = 20
) -> Estimate:
    """Any smooth figure over rows, with a standard error from `groups + 1` evaluations of it.

    The clusters are dealt at random into K groups of equal size; each group is left out once, and
    `se**2 = (K - 1) / K * sum((value without group - value)**2)`: P. S. Kott, "The delete-a-group jackknife",
    Journal of Official Statistics 17(4), 2001. For figures that are too dear to bootstrap.
    """
    codes = cluster_codes(clusters, n)
    count = int(codes.max()) + 1
    value, parts = statistic(np.arange(n)), min(groups, count)
    if parts < 2:
        return Estimate(value, math.nan, n, count)
    part = np.random.default_rng(seed).permutation(count)[codes] % parts
    without = np.array([statistic(np.flatnonzero(part != k)) for k in range(parts)])
    se = math.sqrt((parts - 1) / parts * float(((without - value) ** 2).sum()))
    return Estimate(value, se, n, count)
