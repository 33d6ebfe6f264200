"""Text to events: triggers and the classifier together, clause by clause, with the arguments of each event.

NumPy is all that it needs. A type is reported where its probability reaches the threshold that was chosen on the dev
templates. What is not resolved: pronouns, and whether a report is new, true or about the future.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1core.api import UserError
from r1core_events import taxonomy
from r1core_events.arguments import arguments
from r1core_events.model import OWN, Model, Weights
from r1core_events.rules import Hit, Rules
from r1core_events.taxonomy import Taxonomy
from r1core_events.tokens import Tokens, tokenize
from r1core_events.units import Unit, units
from r1core_events.values import Argument, Event, Source


class Tagger:
    """Finds events. Loading takes about half a second, a sentence well below a millisecond."""

    def __init__(self, kinds: Taxonomy, weights: Weights, threshold: float | None = None) -> None:
        if weights.digests[0] != kinds.digest():
            raise UserError(
                "the model was fitted for another taxonomy (other types or triggers)",
                fix="fit one for it, r1core events fit --taxonomy DIR --output FILE, and give --model FILE",
            )
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise UserError(f"the threshold is {threshold}", fix="give a probability between 0 and 1")
        self.taxonomy, self.threshold = kinds, weights.threshold if threshold is None else threshold
        self._model, self._rules, self._labels = Model(weights), Rules(kinds), weights.labels

    @staticmethod
    def load(folders: Sequence[Path] = (), model: Path | None = None, *, threshold: float | None = None) -> Tagger:
        """Load the tagger that ships, or one for further groups in `folders` with a `model` fitted for them.

        Parameters
        ----------
        threshold : least probability of an event; None for the one that was chosen while fitting.

        Raises
        ------
        UserError : for a broken taxonomy file, and for a model that is none or was fitted for another taxonomy.
        """
        return Tagger(taxonomy.load(*folders), Weights.load(model or OWN), threshold)

    def tag(self, text: str) -> tuple[Event, ...]:
        """Return the events of a text in order of their place, each type once a clause."""
        found = [event for unit in units(text) for event in self._tag_clause(text, unit)]
        return tuple(sorted(found, key=lambda event: (event.start, event.end, event.type)))

    def triggers(self, text: str) -> tuple[str, ...]:
        """Return the types whose triggers stand in a text outside of doubt: the rules alone."""
        found: set[int] = set()
        for unit in units(text):
            tokens = tokenize(text, unit.start, unit.end, self._model.stored.vocabulary)
            found.update(hit.label for hit in self._rules.find(tokens) if hit.weight)
        return tuple(self._labels[label] for label in sorted(found))

    def _tag_clause(self, text: str, unit: Unit) -> list[Event]:
        vocabulary = self._model.stored.vocabulary
        tokens = tokenize(text, unit.start, unit.end, vocabulary)
        if not any(len(word) > 2 and word in vocabulary for word in tokens.lower):
            return []  # of a clause without a known word, character n-grams alone would speak
        hits = self._rules.find(tokens)
        probabilities = self._model.probabilities(self._model.scores(tokens, hits))
        labels = (probabilities >= self.threshold).nonzero()[0].tolist()
        if not labels:
            return []
        told = arguments(text, unit, vocabulary)
        return [self._event(tokens, hits, label, float(probabilities[label]), told) for label in labels]

    def _event(
        self, tokens: Tokens, hits: Sequence[Hit], label: int, probability: float, told: tuple[Argument, ...]
    ) -> Event:
        own = [hit for hit in hits if hit.label == label and hit.weight]
        if own:
            longest = max(own, key=lambda hit: (hit.last - hit.first, -hit.first))
            first, last = longest.first, longest.last
        else:
            first, last = heaviest_run(self._model.weight_of_words(tokens, label))
        source: Source = "both" if own else "classifier"
        start, end = tokens.starts[first], tokens.ends[last]
        return Event(self._labels[label], round(probability, 4), start, end, source, told)


def heaviest_run(weights: Sequence[float]) -> tuple[int, int]:
    """First and last index of the run with the largest sum (Kadane); of one element where all are negative."""
    best, first, last = weights[0], 0, 0
    running, begin = 0.0, 0
    for at, weight in enumerate(weights):
        if running <= 0.0:
            running, begin = 0.0, at
        running += weight
        if running > best:
            best, first, last = running, begin, at
    return first, last
