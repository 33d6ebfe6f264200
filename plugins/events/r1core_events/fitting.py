"""Fits the classifier from the templates, and calibrates it; needs scikit-learn, which brings SciPy (extra `fit`).

One-against-the-rest linear classifiers by regularised least squares (Rifkin and Klautau 2004), in the dual, since
there are fewer rows than features. One filling a template is enough: slots are classes by the time they are features.
`dev` decides the calibration and the threshold, `test` and the hand-written sentences are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy import linalg
from sklearn.linear_model import LogisticRegression

from r1core_events import generation, lexicon
from r1core_events.features import Numbering, terms
from r1core_events.generation import Row, generate
from r1core_events.model import Floats, Model, Weights, margins
from r1core_events.rules import Rules
from r1core_events.taxonomy import Taxonomy
from r1core_events.tokens import Tokens, tokenize, words
from r1core_events.units import clauses

BLOCK_WEIGHTS = (2.0, 1.5, 1.5, 1.0, 0.6, 0.5)
"""How much each block of features counts, in the order of `features.BLOCKS`; chosen on dev."""
REGULARISATION = 3.0
"""Added to the diagonal of the Gram matrix; chosen on dev."""
LEAST_WEIGHT = 4
"""Weights below this, of 127, are left out: they make the file large and change little."""
SURER = 0.005
"""Of micro-F1 on dev, given up for the highest threshold that costs no more: false events are the dearer mistake."""
ROWS_AT_ONCE = 1024  # of the Gram matrix: as a sparse product all of it would take twice its size
SEED = 20_26
THRESHOLDS = np.linspace(0.05, 0.95, 91)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights, and micro-F1 on dev at the threshold that was chosen there."""

    weights: Weights
    dev_micro_f1: float


def fit(taxonomy: Taxonomy, *, triggers: bool = True) -> Fitted:
    """Fit on train, calibrate and choose the threshold on dev. Takes about two minutes on two cores, and 4 GiB.

    Parameters
    ----------
    triggers : whether hits of rules are among the features; False for the comparison in `benchmarks/events.py`.
    """
    labels = tuple(kind.id for kind in taxonomy.types)
    rows = [row for row in generate(taxonomy, "train", SEED) if len(row.types) < 2]
    vocabulary = vocabulary_of(taxonomy)
    numbering, rules = Numbering(lexicon.load(), len(labels)), Rules(taxonomy)
    clause_tokens = [tokenize(row.text, 0, len(row.text), vocabulary) for row in rows]
    matrix = _matrix(clause_tokens, rules, numbering, triggers)
    targets = np.zeros((len(rows), len(labels) + 1))
    column = {label: number for number, label in enumerate(labels)}
    for number, row in enumerate(rows):
        targets[number, column[row.types[0]] if row.types else -1] = 1.0
    known, values, bias = _solve(matrix, targets, numbering)
    scale = np.maximum(np.abs(values).max(axis=0), 1e-6) / 127
    small = np.rint(values / scale).astype(np.int8)
    small[np.abs(small) < LEAST_WEIGHT] = 0
    kept = small.any(axis=1)
    digests = taxonomy.digest(), data_digest(taxonomy)
    rough = Weights(labels, vocabulary, known[kept], small[kept], scale.astype(np.float32), bias.astype(np.float32),
                    np.array([1, 1, 0], np.float32), 0.5, digests)  # fmt: skip
    return calibrate(rough, taxonomy, triggers=triggers)


def data_digest(taxonomy: Taxonomy) -> str:
    """Hash of everything that fitting reads."""
    digest = hashlib.sha256(taxonomy.fit_digest().encode())
    for file in (generation.NEGATIVES, *generation.wording_files(), lexicon.FILE):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def vocabulary_of(taxonomy: Taxonomy) -> frozenset[str]:
    """The words of all train templates without their slots, lower case; the examples' made-up names are left out."""
    others = generation.negatives()
    texts = [*others["sentences"]["train"], *others["frames"]["train"]]
    for kind in taxonomy.types:
        texts += [*kind.train, *kind.triggers, kind.title, *generation.wordings().get(kind.id, ())]
    bare = (generation.without_slots(text) for text in texts)
    return frozenset(word for text in bare for word in words(text))


def _matrix(clause_tokens: Iterable[Tokens], rules: Rules, numbering: Numbering, triggers: bool) -> sparse.csr_matrix:
    """(N, F) features, each block of a row divided by the root of its size; as `Model.scores` counts them."""
    data: list[float] = []
    indices: list[int] = []
    ends = [0]
    for tokens in clause_tokens:
        clause = [word for word in terms(tokens) if word]
        own = [bucket for bucket in map(numbering.word, clause) if bucket >= 0]
        characters = [bucket for word in clause for bucket in numbering.characters(word)]
        concepts, concept_pairs = numbering.concepts(clause)
        blocks: tuple[Sequence[int], ...] = (
            own, characters, numbering.pairs(clause), concepts.tolist(), concept_pairs.tolist(),
        )  # fmt: skip
        for block in blocks:
            indices += block
            data += [max(1, len(block)) ** -0.5] * len(block)
        hits = {hit.label for hit in rules.find(tokens) if hit.weight} if triggers else set()
        indices += [numbering.trigger(label) for label in sorted(hits)]
        data += [1.0] * len(hits)
        ends.append(len(indices))
    made = sparse.csr_matrix((data, indices, ends), shape=(len(ends) - 1, numbering.total))
    made.sum_duplicates()
    return made


def _solve(
    matrix: sparse.csr_matrix, targets: NDArray[np.float64], numbering: Numbering
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The features that were seen, their (K, L + 1) weights in the units of `matrix`, and the (L + 1,) biases."""
    seen = np.asarray((matrix > 0).sum(axis=0)).ravel()
    known = np.flatnonzero(seen).astype(np.int64)
    rarity = np.log(matrix.shape[0] / seen[known]) / 5
    block = np.searchsorted(numbering.starts, known, side="right") - 1
    factor = rarity * np.asarray(BLOCK_WEIGHTS)[block]
    scaled = matrix[:, known] @ sparse.diags(factor)
    bias = targets.mean(axis=0)
    gram = np.empty((scaled.shape[0],) * 2, np.float32)
    for at in range(0, scaled.shape[0], ROWS_AT_ONCE):
        gram[at : at + ROWS_AT_ONCE] = (scaled[at : at + ROWS_AT_ONCE] @ scaled.T).toarray()
    gram[np.diag_indices_from(gram)] += REGULARISATION
    dual = linalg.solve(gram, (targets - bias).astype(np.float32), assume_a="pos", overwrite_a=True)
    return known, (scaled.T @ dual) * factor[:, None], bias


def calibrate(rough: Weights, taxonomy: Taxonomy, *, triggers: bool = True) -> Fitted:
    """Fit the three numbers of Platt's sigmoid, then choose the threshold by micro-F1; both on dev."""
    model, rules = Model(rough), Rules(taxonomy)
    rows = list(generate(taxonomy, "dev", SEED, fillings=2))
    scored = [_scores(model, rules, row, triggers) for row in rows]
    single = [number for number, row in enumerate(rows) if len(row.types) < 2]
    column = {label: number for number, label in enumerate(rough.labels)}
    inputs, answers = [], []
    for number in single:
        scores = scored[number]
        gold = np.zeros((len(scores), len(rough.labels)), bool)
        for label in rows[number].types:
            gold[scores[:, column[label]].argmax(), column[label]] = True
        inputs.append(np.stack([scores[:, :-1].ravel(), margins(scores)[:, :-1].ravel()], axis=1))
        answers.append(gold.ravel())
    platt = LogisticRegression(C=1e4, max_iter=1000).fit(np.concatenate(inputs), np.concatenate(answers))
    numbers = np.array([*platt.coef_[0], platt.intercept_[0]], np.float32)
    model = Model(replace(rough, platt=numbers))
    best = np.stack([np.max([model.probabilities(one) for one in scores], axis=0) for scores in scored])
    gold = np.zeros(best.shape, bool)
    for number, row in enumerate(rows):
        gold[number, [column[label] for label in row.types]] = True
    found = [(best >= threshold) for threshold in THRESHOLDS]
    f1 = [2 * (one & gold).sum() / (one.sum() + gold.sum()) for one in found]
    chosen = max(at for at, one in enumerate(f1) if one >= max(f1) - SURER)
    return Fitted(replace(rough, platt=numbers, threshold=float(THRESHOLDS[chosen])), float(f1[chosen]))


def _scores(model: Model, rules: Rules, row: Row, triggers: bool) -> Floats:
    """(clauses, L + 1) scores of a row."""
    found = []
    for start, end in clauses(row.text, 0, len(row.text)):
        tokens = tokenize(row.text, start, end, model.stored.vocabulary)
        found.append(model.scores(tokens, rules.find(tokens) if triggers else ()))
    return np.stack(found)


def write(taxonomy: Taxonomy, path: Path) -> Fitted:
    """Fit and save."""
    fitted = fit(taxonomy)
    fitted.weights.save(path)
    return fitted
