"""From a mention to concepts: the dictionary first, then the encoder's nearest concepts in the ranker's order.

The dictionary answers mentions that are names, as they stand or normalised; its order is the knowledge base's, or, of a
surface that several concepts share, that of how close each is to the words around the mention. All others get the
ranker's probability; what the probabilities lack to 1 is that of none of the concepts found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from r1core_umls.evidence import CONCEPTS, Witness
from r1core_umls.features import Bags, Texts, words_of
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.ranking import Fitted
from r1core_umls.search import Nearest

BATCH = 2048  # mentions that are weighed at a time


@dataclass(frozen=True, slots=True)
class Candidate:
    """A concept that a mention may mean. `position`: of the concept in the base. `probability`: 1 by the dictionary."""

    position: int
    probability: float
    method: Literal["dictionary", "encoder"]


class Normaliser:
    """Finds the concepts of mentions.

    Parameters
    ----------
    fitted : as `fitting.fit` made it, on this base.
    exact : see `search.Nearest`.
    """

    def __init__(self, base: KnowledgeBase, fitted: Fitted, *, exact: bool = False) -> None:
        if len(fitted.tables.told) != len(base):
            raise ValueError(f"fitted on {len(fitted.tables.told)} concepts, this base has {len(base)}")
        self.base, self._ranker = base, fitted.ranker
        self._witness = Witness(fitted.tables, Nearest(fitted.tables, fitted.cells, exact=exact))

    def candidates(
        self, mentions: Sequence[str], k: int = 5, contexts: Sequence[str] | None = None
    ) -> list[list[Candidate]]:
        """Return up to `k` concepts of each mention, best first, each concept once; () for one without a word.

        Parameters
        ----------
        contexts : the text around each mention. It decides between the concepts of one name; nothing else reads it.

        Raises
        ------
        ValueError : for a `k` of more concepts than are weighed, or contexts that are not one for each mention.
        """
        if not 1 <= k <= CONCEPTS:
            raise ValueError(f"k = {k}; 1 to {CONCEPTS} concepts are weighed")
        if contexts is not None and len(contexts) != len(mentions):
            raise ValueError(f"{len(mentions)} mentions, but {len(contexts)} contexts")
        found = [self._known(mention) for mention in mentions]
        if contexts is not None:
            for at, known in enumerate(found):
                if len(known) > 1:
                    found[at] = self._closest(known, mentions[at], contexts[at])
        found = [known[:k] for known in found]
        unknown = [at for at, known in enumerate(found) if not known and any(map(str.isalnum, mentions[at]))]
        for first in range(0, len(unknown), BATCH):
            batch = unknown[first : first + BATCH]
            evidence = self._witness.weigh([mentions[at] for at in batch])
            probabilities = self._ranker.probabilities(evidence)
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
            positions = np.take_along_axis(evidence.concepts, order, 1).tolist()
            shares = np.take_along_axis(probabilities, order, 1).tolist()
            for at, concepts, each in zip(batch, positions, shares, strict=True):
                found[at] = [
                    Candidate(one, share, "encoder") for one, share in zip(concepts, each, strict=True) if one >= 0
                ]
        return found

    def normalise(
        self, mentions: Sequence[str], precision: float = 0.95, contexts: Sequence[str] | None = None
    ) -> list[Candidate | None]:
        """Return the concept of each mention, None where that would be too unsure.

        Parameters
        ----------
        precision : of the encoder's answers, that this many of those given are right; held on names of concepts that
            the encoder had not learnt from when the ranker was trained. Mentions that are names are always answered.
        contexts : see `candidates`.

        Raises
        ------
        ValueError : for a precision outside of 0 to 1.
        """
        if not 0 <= precision <= 1:
            raise ValueError(f"precision = {precision}; a fraction from 0 to 1 is wanted")
        least = self._ranker.threshold(precision)
        best = [found[0] if found else None for found in self.candidates(mentions, 1, contexts)]
        return [one if one is None or one.method == "dictionary" or one.probability >= least else None for one in best]

    def _known(self, mention: str) -> list[Candidate]:
        return [Candidate(self.base.position(one.id), 1.0, "dictionary") for one in self.base.lookup(mention)]

    def _closest(self, known: list[Candidate], mention: str, context: str) -> list[Candidate]:
        """Order concepts by how close the text around a mention is to what the base says of each.

        By the cosine of the context, without the mention's words, with the concept's definition, other names and
        parents' names, whichever lies nearest; a context without other words changes nothing.
        """
        own = set(words_of(mention))
        around = [word for word in words_of(context) if word not in own and any(map(str.isalnum, word))]
        if not around:
            return known
        vector = self._witness.vectors([around])[0]
        closeness = []
        for one in known:
            concept = self.base.concepts[one.position]
            said = [concept.definition, concept.name, *(synonym.text for synonym in concept.synonyms)]
            said += [self.base[parent].name for parent in concept.parents if parent in self.base]
            words = [[word for word in words_of(text) if word not in own] for text in said if text]
            each = self._witness.vectors([left for left in words if left])
            closeness.append(float((each @ vector).max()) if len(each) else -1.0)
        return [known[at] for at in sorted(range(len(known)), key=lambda at: -closeness[at])]


Columns = tuple[Texts, NDArray[np.int32], list[str], Bags]


def columns_of(base: KnowledgeBase) -> Columns:
    """Return a base's names, the concept of each, and by concept the definitions and the parents (positions)."""
    store = base.store
    definitions = [concept.definition for concept in base.concepts]
    store.records.let_go()
    return (
        store.surfaces,  # as they are on disk: as Python's strings, nine million would take a gigabyte
        np.asarray(base.concept_of_name),
        definitions,
        Bags(np.asarray(store.parents, np.int64), np.asarray(store.parent_offsets)),
    )
