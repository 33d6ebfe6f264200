"""From a mention to concepts: the dictionary first, then the nearest names by the encoder.

The dictionary answers mentions that are names, as they stand or normalised, with a score of 1. All others are answered
by the encoder, whose score is the cosine to the concept's nearest name: an order, not a probability.

Not covered yet: abstaining at a stated precision, and reading the context of an ambiguous mention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r1core_umls.encoder import Encoder
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.search import NameVectors

NAMES = 48  # nearest names that are looked at: concepts have several


@dataclass(frozen=True, slots=True)
class Candidate:
    """A concept that a mention may mean. `position`: of the concept in the base. `score`: at most 1."""

    position: int
    score: float
    method: Literal["dictionary", "encoder"]


class Normaliser:
    """Finds the concepts of mentions.

    Parameters
    ----------
    encoder : trained on this base or another; None looks names up only.
    vectors : the base's names by this encoder, where they are at hand already.
    """

    def __init__(self, base: KnowledgeBase, encoder: Encoder | None = None, vectors: NameVectors | None = None) -> None:
        self.base, self.encoder = base, encoder
        if encoder is not None and vectors is None:
            vectors = NameVectors(encoder.encode_many(base.surfaces(range(base.number_of_names))))
        self._vectors = vectors

    def candidates(self, mentions: Sequence[str], k: int = 5) -> list[list[Candidate]]:
        """Return up to `k` concepts of each mention, best first, each concept once."""
        found = [self._known(mention) for mention in mentions]
        open_ones = [at for at, known in enumerate(found) if len(known) < k and mentions[at].strip()]
        if self.encoder is not None and self._vectors is not None and open_ones:
            queries = self.encoder.encode([mentions[at] for at in open_ones])
            scores, names = self._vectors.nearest(queries, max(NAMES, 4 * k))
            concepts = np.asarray(self.base.concept_of_name)[names]
            for at, line, row in zip(open_ones, scores.tolist(), concepts.tolist(), strict=True):
                held = {one.position for one in found[at]}
                for score, position in zip(line, row, strict=True):
                    if position not in held:
                        held.add(position)
                        found[at].append(Candidate(position, min(1.0, score), "encoder"))
        return [known[:k] for known in found]

    def _known(self, mention: str) -> list[Candidate]:
        return [Candidate(self.base.position(one.id), 1.0, "dictionary") for one in self.base.lookup(mention)]
