"""From a mention to concepts: the dictionary first, then the encoder's nearest concepts in the ranker's order.

The dictionary answers mentions that are names, as they stand or normalised; its order is the knowledge base's. All
others get the ranker's probability, of one concept against the others that were found: that none of them is meant is
not among its choices.

Not covered yet: abstaining at a stated precision, and reading the context of an ambiguous mention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r1core_umls.evidence import CONCEPTS, Witness
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.ranking import Fitted

BATCH = 256  # mentions that are weighed at a time


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
    fitted : as `fitting.fit` made it, on this base or another.
    """

    def __init__(self, base: KnowledgeBase, fitted: Fitted) -> None:
        self.base, self._ranker = base, fitted.ranker
        self._witness = Witness(fitted.encoder, *tables_of(base))

    def candidates(self, mentions: Sequence[str], k: int = 5) -> list[list[Candidate]]:
        """Return up to `k` concepts of each mention, best first, each concept once; () for one without a word.

        Raises
        ------
        ValueError : for a `k` of more concepts than are weighed.
        """
        if not 1 <= k <= CONCEPTS:
            raise ValueError(f"k = {k}; 1 to {CONCEPTS} concepts are weighed")
        found = [self._known(mention)[:k] for mention in mentions]
        unknown = [at for at, known in enumerate(found) if not known and any(map(str.isalnum, mentions[at]))]
        for first in range(0, len(unknown), BATCH):
            batch = unknown[first : first + BATCH]
            evidence = self._witness.weigh([mentions[at] for at in batch])
            probabilities = self._ranker.probabilities(evidence)
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
            for at, row, positions, shares in zip(batch, order, evidence.concepts, probabilities, strict=True):
                found[at] = [
                    Candidate(int(positions[one]), float(shares[one]), "encoder") for one in row if positions[one] >= 0
                ]
        return found

    def _known(self, mention: str) -> list[Candidate]:
        return [Candidate(self.base.position(one.id), 1.0, "dictionary") for one in self.base.lookup(mention)]


Tables = tuple[list[str], list[int], list[str], list[list[int]]]


def tables_of(base: KnowledgeBase) -> Tables:
    """Return a base's names, the concept of each, and by concept the definitions and the parents (positions)."""
    concepts = list(base.concepts)
    place = {concept.id: position for position, concept in enumerate(concepts)}
    return (
        base.surfaces(range(base.number_of_names)),
        np.asarray(base.concept_of_name).tolist(),
        [concept.definition for concept in concepts],
        [[place[up] for up in concept.parents if up in place] for concept in concepts],
    )
