"""Ranks diseases by how alike their phenotypes are to those of a patient, over the ontology. Torch-free.

Two terms are as alike as Lin (1998, "An information-theoretic definition of similarity", section 4) has it: twice the
information content of their most informative common ancestor over the sum of their own. A term's information content
is -log of the share of diseases that show it or a kind of it (Resnik 1995), counted with one disease more, so that a
term which no disease shows has one too. A patient and a disease are as alike as the best match of each term on either
side, averaged over both sides (Koehler et al. 2009, "Clinical diagnostics in human genetics with semantic similarity
searches in ontologies", equation 3), each term weighted by its information content and a disease's terms by how often
it shows them as well.

Research, not clinical advice. Not covered: phenotypes that the patient is known not to have, sex, age of onset.
"""

# D = diseases, A = annotations of all diseases, U = terms that any of them shows, Q = terms of a patient

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_umls.annotations import Disease
from r1core_umls.knowledge import KnowledgeBase

HELD = 2048  # rows of similarities that are kept: U floats each, about 60 MB in all
RARELY = 0.05  # added to a frequency, so that a phenotype that is rarely shown still counts
Array = NDArray[np.float32]


class Retriever:
    """Finds diseases by phenotypes.

    Parameters
    ----------
    base : the ontology. diseases : what may be found; their terms must be in `base`, or have been merged into one.

    Raises
    ------
    UserError : no disease, or one with a term that the ontology does not know.
    """

    def __init__(self, base: KnowledgeBase, diseases: Sequence[Disease]) -> None:
        if not diseases:
            raise UserError("there is no disease to be found", fix="name at least one with its phenotypes")
        self.base, self.diseases = base, tuple(diseases)
        shown = [self._positions(disease.phenotypes) for disease in self.diseases]
        lengths = np.array([len(terms) for terms in shown])
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        used, self._columns = np.unique(np.concatenate(shown), return_inverse=True)  # (U,), (A,)
        above = [self._with_ancestors(int(term)) for term in used]
        self._content = self._information(lengths, above)
        self._below = _below(above, len(base))
        self._used_content = self._content[used]
        frequency = np.concatenate([list(disease.phenotypes.values()) for disease in self.diseases])
        self._weights = (self._used_content[self._columns] * (frequency + RARELY)).astype(np.float32)
        self._totals = np.add.reduceat(self._weights, self._starts)
        self._similarities = lru_cache(HELD)(self._computed)

    def information(self, term: str) -> float:
        """Return the information content of a term in nats."""
        return float(self._content[self._position(term)])

    def name(self, term: str) -> str:
        """Return the preferred name of a term."""
        return self.base.concepts[self._position(term)].name

    def scores(self, phenotypes: Iterable[str]) -> Array:
        """Return how alike each disease is to a patient with these phenotypes, (D,), from 0 to 1.

        Raises
        ------
        UserError : no phenotype, or one that the ontology does not know.
        """
        terms = np.unique(self._positions(phenotypes))
        if not len(terms):
            raise UserError("no phenotype is given", fix="name at least one, for instance HP:0001250")
        rows = np.stack([self._similarities(int(term)) for term in terms])  # (Q, U)
        theirs = rows[:, self._columns]  # (Q, A)
        forth = np.maximum.reduceat(theirs, self._starts, axis=1)  # (Q, D): the best match of each of the patient's
        weights = self._content[terms]
        back = np.add.reduceat(theirs.max(0) * self._weights, self._starts)
        there = weights @ forth / max(float(weights.sum()), 1e-9)
        scores: Array = (there + back / np.maximum(self._totals, 1e-9)) / 2
        return scores

    def rank(self, phenotypes: Iterable[str], k: int = 10) -> list[tuple[Disease, float]]:
        """Return the `k` diseases most alike with their scores, best first; equal ones in their order."""
        scores = self.scores(phenotypes)
        return [(self.diseases[at], float(scores[at])) for at in np.argsort(-scores, kind="stable")[:k]]

    def _computed(self, term: int) -> Array:
        """Lin's similarity of a term to each that is shown, (U,)."""
        common = np.zeros(len(self._used_content), np.float32)
        above = self._with_ancestors(term)
        for ancestor in above[np.argsort(self._content[above], kind="stable")]:  # the most informative is written last
            common[self._below[ancestor]] = self._content[ancestor]
        return 2 * common / np.maximum(self._content[term] + self._used_content, 1e-9)

    def _information(self, lengths: NDArray[np.int64], above: list[NDArray[np.int64]]) -> Array:
        """Information content of every term of the ontology."""
        counts = np.zeros(len(self.base))
        for columns in np.split(self._columns, np.cumsum(lengths)[:-1]):
            counts[np.unique(np.concatenate([above[column] for column in columns]))] += 1
        return (-np.log((counts + 1) / (len(lengths) + 1))).astype(np.float32)

    def _with_ancestors(self, term: int) -> NDArray[np.int64]:
        return np.append(self.base.hierarchy.ancestors(term), term).astype(np.int64)

    def _positions(self, terms: Iterable[str]) -> NDArray[np.int64]:
        return np.array([self._position(term) for term in terms], np.int64)

    def _position(self, term: str) -> int:
        if term not in self.base:
            same = [one.id for one in self.base.replacements(term) if one.relation == "SY" and one.id in self.base]
            if len(same) != 1:
                said = f"{term} is no phenotype of {self.base.report.source}"
                raise UserError(said, fix="name HPO terms in use; `r1core umls normalise` finds one by its name")
            term = same[0]
        return self.base.position(term)


def _below(above: list[NDArray[np.int64]], terms: int) -> list[NDArray[np.int64]]:
    """Columns of the shown terms that are a term or a kind of it, by the term's position."""
    columns = np.repeat(np.arange(len(above)), [len(one) for one in above])
    ancestors = np.concatenate(above)
    order = np.argsort(ancestors, kind="stable")
    return np.split(columns[order], np.searchsorted(ancestors[order], np.arange(1, terms)))
