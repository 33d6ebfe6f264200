"""What any adapted model has to beat: the most frequent label, and a tuned linear model over TF-IDF n-grams.

Both give scores (N, C), N = test rows, C = labels in the order of `labels`; only their order within a row means
anything. Needs scikit-learn (the extra `[eval]`) for `tfidf`. Cost grows with rows times labels.
Not covered: free-text tasks, which have no labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from r1core.api import Example, UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SVM_GRID = (0.25, 1.0, 4.0, 16.0)
"""C of the linear SVM. On the medical task validation accuracy is flat (within 0.5 points) from 4 to 32."""
LOGISTIC_GRID = (16.0, 64.0, 256.0)
"""C of the logistic regression, whose loss needs a weaker penalty for the same fit."""
FEATURES = ("char_wb", "char")
"""Character n-grams inside word boundaries, or across them."""

OnFit = Callable[[int, int], None]
"""Told `(fits done, fits in all)` after each fit, for a progress display."""


@dataclass(frozen=True, slots=True)
class TfidfResult:
    """The tuned baseline's scores of the test rows, (N, C), and what validation chose."""

    scores: NDArray[np.float64]
    features: str
    classifier: str
    c: float
    validation_accuracy: float


def user_text(example: Example) -> str:
    """Return what the user wrote: the contents of all user messages, one below the other."""
    return "\n".join(m.content for m in example.messages if m.role == "user")


def shared_affixes(texts: Sequence[str]) -> tuple[str, str]:
    """Return the prefix and suffix that every text has in common: the question around the term.

    Both are cut at white space, so that no word of a text is split. Fewer than two different texts share nothing.
    """
    distinct = set(texts)
    if len(distinct) < 2:
        return "", ""
    prefix = _shared_words(distinct)
    # The suffix may not reach into the part that is already taken; reversed, it is a prefix.
    return prefix, _shared_words(text[len(prefix) :][::-1] for text in distinct)[::-1]


def _shared_words(texts: Iterable[str]) -> str:
    """The longest common beginning that ends in white space."""
    listed = list(texts)
    first, last = min(listed), max(listed)  # all others lie between them, so they share what these two share
    end = 0
    for i, (one, other) in enumerate(zip(first, last, strict=False), 1):
        if one != other:
            break
        if one.isspace():
            end = i
    return first[:end]


def strip_affixes(texts: Sequence[str], prefix: str, suffix: str) -> list[str]:
    """Return the texts without this prefix and suffix, where they have them."""
    return [text.removeprefix(prefix).removesuffix(suffix) for text in texts]


def majority(train_labels: Sequence[str], n: int, *, labels: Sequence[str]) -> NDArray[np.float64]:
    """Return the log frequency of each label in train, the same for each of `n` rows: (n, C).

    One is added to every count (Laplace), so that a label that never occurs has a finite score.
    """
    counts = Counter(train_labels)
    frequency = np.array([counts[label] + 1.0 for label in labels])
    return np.tile(np.log(frequency / frequency.sum()), (n, 1))


def tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    val_texts: Sequence[str],
    val_labels: Sequence[str],
    test_texts: Sequence[str],
    *,
    labels: Sequence[str],
    seed: int = 0,
    on_fit: OnFit | None = None,
) -> TfidfResult:
    """Score the test rows by a linear classifier over TF-IDF of word 1-2 and character 2-5 n-grams.

    Validation accuracy chooses the kind of character n-grams and C of a one-versus-rest linear SVM, then whether
    logistic regression on those n-grams does better. Everything is fitted on the training rows alone: the
    n-grams, their weights and the question that is stripped from every text. The same seed gives the same scores.

    Raises
    ------
    UserError : without scikit-learn, without validation rows, or where train has one label only.
    """
    refuse_untunable(set(train_labels), len(val_texts))
    from joblib import Parallel, cpu_count, delayed

    prefix, suffix = shared_affixes(train_texts)
    train, val, test = (strip_affixes(texts, prefix, suffix) for texts in (train_texts, val_texts, test_texts))
    tables = {kind: _features(kind, train, val, test) for kind in FEATURES}
    done, total = count(1), len(FEATURES) * len(SVM_GRID) + len(LOGISTIC_GRID)

    def best(trials: Sequence[tuple[str, str, float]]) -> TfidfResult:
        # Processes, not threads: liblinear draws from one global generator.
        work = (
            delayed(_trial)(tables[kind], train_labels, val_labels, labels, kind, classifier, c, seed)
            for kind, classifier, c in trials
        )
        results = []
        for result in Parallel(n_jobs=min(len(trials), cpu_count()), return_as="generator")(work):
            results.append(result)
            if on_fit is not None:
                on_fit(next(done), total)
        return max(results, key=_accuracy)  # the first of equals: the stronger penalty, the simpler n-grams

    svm = best([(kind, "svm", c) for kind in FEATURES for c in SVM_GRID])
    logistic = best([(svm.features, "logistic", c) for c in LOGISTIC_GRID])
    return max(svm, logistic, key=_accuracy)


def _trial(
    tables: tuple[csr_matrix, ...],
    train_labels: Sequence[str],
    val_labels: Sequence[str],
    labels: Sequence[str],
    kind: str,
    classifier: str,
    c: float,
    seed: int,
) -> TfidfResult:
    x_train, x_val, x_test = tables
    fitted = _estimator(classifier, c, seed).fit(x_train, np.asarray(train_labels))
    hits = float(np.mean(fitted.predict(x_val) == np.asarray(val_labels)))
    return TfidfResult(_columns(fitted, x_test, labels), kind, classifier, c, hits)


def _accuracy(result: TfidfResult) -> float:
    return result.validation_accuracy


def refuse_untunable(labels: Collection[str], val_rows: int, task: str = "") -> None:
    """Raise a `UserError` where `tfidf` cannot be tuned: by the labels of train and the number of validation rows."""
    skip = "give more records, or set evaluate.baselines = false"
    of = f"task {task!r}: " if task else ""
    if not val_rows:
        raise UserError(f"{of}the validation split has no rows, so the TF-IDF baseline cannot be tuned", fix=skip)
    if len(labels) < 2:
        raise UserError(f"{of}the training split holds {len(labels)} label(s), a TF-IDF baseline needs two", fix=skip)
    try:
        metadata.version("scikit-learn")  # asked, and not imported: `check` stays light
    except metadata.PackageNotFoundError as error:
        raise UserError("the TF-IDF baseline needs scikit-learn", fix="pip install 'r1core[eval]'") from error


def _features(kind: str, train: list[str], *others: list[str]) -> tuple[csr_matrix, ...]:
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single characters and digits are words too: "type 2", "stage A".
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    parts = TfidfVectorizer(analyzer=kind, ngram_range=(2, 5), sublinear_tf=True)
    try:
        fitted = hstack([words.fit_transform(train), parts.fit_transform(train)])
    except ValueError as error:  # scikit-learn's word for it is "empty vocabulary"
        raise UserError(
            f"the training texts hold nothing to count: {error}", fix="set evaluate.baselines = false"
        ) from error
    rest = (hstack([words.transform(texts), parts.transform(texts)]) for texts in others)
    matrices = tuple(map(csr_matrix, (fitted, *rest)))
    for matrix in matrices:
        matrix.sort_indices()  # liblinear would do it in place, which fails on arrays that processes share read-only
    return matrices


def _estimator(classifier: str, c: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    if classifier == "svm":
        return LinearSVC(C=c, random_state=seed, max_iter=5000)
    # liblinear takes seconds where the multinomial solvers take minutes on 10^5 sparse features.
    return OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", random_state=seed))


def _columns(fitted: Any, x: csr_matrix, labels: Sequence[str]) -> NDArray[np.float64]:
    """Decision values in the order of `labels`; a label that train lacks ranks below all others."""
    values = np.asarray(fitted.decision_function(x), dtype=np.float64)
    if values.ndim == 1:  # two classes: one margin, positive for the second
        values = np.stack([-values, values], axis=1)
    floor = float(values.min()) - 1.0 if values.size else 0.0
    scores = np.full((len(values), len(labels)), floor)
    position = {label: i for i, label in enumerate(labels)}
    for column, label in enumerate(fitted.classes_):
        scores[:, position[str(label)]] = values[:, column]
    return scores
