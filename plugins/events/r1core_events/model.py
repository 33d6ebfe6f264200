"""The fitted weights: scores of a clause for every type, and the probabilities that follow. NumPy only.

One file (`model.npz`, no pickle) holds int8 weights with a scale a type, for the features that fitting saw. The last
column is the class of clauses that report nothing.

The probability of a type is `sigmoid(a s + b m + c)` (Platt 1999 with two inputs), `s` its score and `m` the distance
of that score from the best one of another class: types compete within a clause, and clauses of a sentence do not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_events import lexicon
from r1core_events.features import Numbering, terms
from r1core_events.rules import Hit
from r1core_events.tokens import Tokens

Floats = NDArray[np.float32]
OWN = Path(__file__).parent / "model.npz"
_CACHED = 20_000  # words, each with a vector of one number a class


@dataclass(frozen=True, slots=True)
class Weights:
    """What is stored.

    Parameters
    ----------
    labels : (L,) full ids of the types. vocabulary : words that are no names when they are capitalised.
    known : (K,) the features that fitting saw, ascending. weights : (K, L + 1) int8. scale, bias : (L + 1,).
    platt : (a, b, c). threshold : least probability of an event.
    digests : of the taxonomy (`Taxonomy.digest`) and of all that fitting read.
    """

    labels: tuple[str, ...]
    vocabulary: frozenset[str]
    known: NDArray[np.int64]
    weights: NDArray[np.int8]
    scale: Floats
    bias: Floats
    platt: Floats
    threshold: float
    digests: tuple[str, str]

    def save(self, path: Path) -> None:
        """Write one compressed file."""
        np.savez_compressed(
            path,
            labels=np.array(self.labels),
            vocabulary=np.array(sorted(self.vocabulary)),
            known=self.known,
            weights=self.weights,
            scale=self.scale,
            bias=self.bias,
            platt=self.platt,
            threshold=np.float64(self.threshold),
            digests=np.array(self.digests),
        )

    @staticmethod
    def load(path: Path) -> Weights:
        """Read a file that `save` wrote. Raises UserError where it is none."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ("known", "weights", "scale", "bias", "platt")}
                return Weights(
                    labels=tuple(stored["labels"].tolist()),
                    vocabulary=frozenset(stored["vocabulary"].tolist()),
                    threshold=float(stored["threshold"]),
                    digests=tuple(stored["digests"].tolist()),
                    **arrays,
                )
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: no fitted events model ({error})", fix="fit one: r1core events fit") from error


class Model:
    """Scores clauses."""

    def __init__(self, weights: Weights) -> None:
        self.stored = weights
        self.numbering = Numbering(lexicon.load(), len(weights.labels))
        self._rows = np.full(self.numbering.total, len(weights.known), dtype=np.int32)
        self._rows[weights.known] = np.arange(len(weights.known), dtype=np.int32)
        none = np.zeros((1, weights.weights.shape[1]), np.float32)  # the last row: all features never seen
        self._weights = np.concatenate([weights.weights * weights.scale, none])
        self._vectors: dict[str, tuple[Floats, Floats, int]] = {}

    def scores(self, tokens: Tokens, hits: Sequence[Hit]) -> Floats:
        """(L + 1,) scores of a clause, the last one for no event."""
        words = [word for word in terms(tokens) if word]
        stored, numbering = self.stored, self.numbering
        vectors = [self._vector(word) for word in words]
        total = np.zeros(len(stored.scale), np.float32)
        if vectors:
            scored = [vector for vector in vectors if vector[2]]
            if scored:
                total += np.sum([vector[0] for vector in scored], axis=0) / np.sqrt(len(scored))
            characters = sum(vector[2] - 1 for vector in scored)
            if characters:
                total += np.sum([vector[1] for vector in scored], axis=0) / np.sqrt(characters)
        for block in (numbering.pairs(words), *numbering.concepts(words)):
            if len(block):
                total += self._sum(block) / np.sqrt(np.float32(len(block)))
        counted = {hit.label for hit in hits if hit.weight}
        if counted:
            total += self._sum([numbering.trigger(label) for label in counted])
        return total + stored.bias

    def probabilities(self, scores: Floats) -> Floats:
        """(L,) probabilities of the types, from the scores of one clause; 0 for a type below "no event" itself."""
        a, b, c = self.stored.platt
        likely = sigmoid(a * scores[:-1] + b * margins(scores[None])[0, :-1] + c)
        return np.where(scores[:-1] > scores[-1], likely, 0.0)

    def weight_of_words(self, tokens: Tokens, label: int) -> list[float]:
        """What each token adds to the score of a type, without pairs: where the evidence stands."""
        lexicon = self.numbering.lexicon
        found = []
        for word in terms(tokens):
            if not word:
                found.append(0.0)
                continue
            own, characters, size = self._vector(word)
            total = float(own[label]) + float(characters[label]) / max(1.0, size - 1) ** 0.5
            concepts = [number + self.numbering.starts[3] for number in lexicon.of_word(word)]
            if concepts:
                total += float(self._weights[self._rows[concepts], label].sum())
            found.append(total)
        return found

    def _sum(self, features: Sequence[int] | NDArray[np.intp]) -> Floats:
        rows = self._rows[features]
        result: Floats = self._weights[rows[rows < len(self._weights) - 1]].sum(axis=0)
        return result

    def _vector(self, word: str) -> tuple[Floats, Floats, int]:
        """Summed weights of a word and of its character n-grams, and one more than the number of those; 0 for none."""
        known = self._vectors.get(word)
        if known is not None:
            return known
        own = self.numbering.word(word)
        nothing = np.zeros(len(self.stored.scale), np.float32)
        characters = [] if own < 0 else self.numbering.characters(word)
        made = (
            nothing if own < 0 else self._sum([own]),
            self._sum(characters) if characters else nothing,
            0 if own < 0 else len(characters) + 1,
        )
        if len(self._vectors) < _CACHED:
            self._vectors[word] = made
        return made


def margins(scores: Floats) -> Floats:
    """(N, L + 1) distances of each score from the best one of another class."""
    order = np.partition(scores, -2, axis=1)
    best, second = order[:, -1:], order[:, -2:-1]
    result: Floats = scores - np.where(scores == best, second, best)
    return result


def sigmoid(x: Floats) -> Floats:
    """Logistic function, without overflow."""
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result
