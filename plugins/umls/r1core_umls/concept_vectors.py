"""A concept as a vector: the mean of what the encoder makes of its names, at length 1. Torch-free.

Nothing is stored: a vector is computed when a concept is first asked for, so a base of millions of concepts costs what
its texts mention, and a concept that training never saw has one as well.
"""

# D = width of the encoder

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from r1core.api import SpanKind
from r1core_umls.encoder import WIDTH, Encoder, unit
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.values import LinkedConcept, span_kind

HELD = 4096  # recent vectors that are kept, as tuples of Python numbers: tens of MB


class ConceptVectors:
    """Vectors of a base's concepts.

    Parameters
    ----------
    load : gives the base and the encoder; called once, when the first vector is asked for.
    """

    width = WIDTH

    def __init__(self, load: Callable[[], tuple[KnowledgeBase, Encoder]]) -> None:
        self._load = lru_cache(1)(load)
        self._known = lru_cache(HELD)(self._numbers)

    def __call__(self, value: LinkedConcept) -> tuple[float, ...]:
        """Return the D numbers of a linked concept; zeros for one that is not in the base, which adds nothing."""
        return self._known(value.concept_id)

    def span_kind(self) -> SpanKind:
        """Return the kind `umls/concept`, whose feature is the concept's vector."""
        return replace(span_kind(2), width=self.width, feature=self)

    def vector(self, concept_id: str) -> NDArray[np.float32]:
        """Return the vector of a concept, (D,).

        Raises
        ------
        KeyError : it is not in the base.
        """
        base, encoder = self._load()
        names = base.surfaces(base.names_of(base.position(concept_id)))
        mean: NDArray[np.float32] = unit(encoder.encode(names).mean(0, keepdims=True))[0]
        return mean

    def _numbers(self, concept_id: str) -> tuple[float, ...]:
        try:
            return tuple(self.vector(concept_id).tolist())
        except KeyError:
            return (0.0,) * self.width
