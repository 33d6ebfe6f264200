"""One knowledge base over every source: concepts, their names, their hierarchy. Torch-free, spaCy-free.

Nothing is decoded before it is asked for, so a base of millions of concepts opens in milliseconds and takes the memory
of what is looked at.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from r1core_umls.concepts import SCOPES, BuildReport, Concept, Progress, Scope, Source, Synonym, Tally, Terms
from r1core_umls.lookup import NameIndex
from r1core_umls.names import key_of, surface_keys, tokenise
from r1core_umls.relations import Hierarchy, Replacement, Retired
from r1core_umls.store import Store, hash64
from r1core_umls.writer import StoreWriter

__all__ = ["BuildReport", "Concept", "KnowledgeBase", "Scope", "Source", "Synonym"]
CONCEPTS_HELD = 4096  # decoded concepts that are kept: a few MB


class Concepts(Sequence[Concept]):
    """The concepts of a store in order of their id, decoded when asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parent_offsets, self._parents = store.parent_offsets.data, store.parents.data
        self._decoded = lru_cache(CONCEPTS_HELD)(self._decode)

    def __len__(self) -> int:
        return len(self._store.ids)

    @overload
    def __getitem__(self, position: int) -> Concept: ...
    @overload
    def __getitem__(self, position: slice) -> list[Concept]: ...
    def __getitem__(self, position: int | slice) -> Concept | list[Concept]:
        if isinstance(position, slice):
            return [self._decode(place) for place in range(*position.indices(len(self)))]
        place = int(position) + len(self) if position < 0 else int(position)
        if not 0 <= place < len(self):
            raise IndexError(position)
        return self._decoded(place)

    def __iter__(self) -> Iterator[Concept]:
        return map(self._decode, range(len(self)))  # a pass over everything leaves the recent ones alone

    def _decode(self, position: int) -> Concept:
        name, synonyms, cuis, semantic_types, definition = json.loads(self._store.records.raw(position))
        named = tuple(Synonym(text, SCOPES[rank - 1], kind) for text, rank, kind in synonyms)
        begin, end = self._parent_offsets[position : position + 2]
        parents = tuple(self._store.ids[parent] for parent in self._parents[begin:end])
        return Concept(self._store.ids[position], name, named, tuple(cuis), tuple(semantic_types), definition, parents)


class KnowledgeBase:
    """Concepts in order of their id, with the index of their names.

    Positions of names and concepts are stable for one `fingerprint()`.
    """

    def __init__(self, store: Store, fingerprint: str, report: BuildReport, terms: Terms | None = None) -> None:
        self.store = store
        self.report = report
        self.terms = terms or Terms()
        self.concepts = Concepts(store)
        self.index = NameIndex(store)
        self.hierarchy = Hierarchy(store)
        self.retired = Retired(store)
        self._fingerprint = fingerprint
        self._id_hash, self._id_position = store.id_hash.data, store.id_position.data

    @classmethod
    def build(cls, source: Source, progress: Progress | None = None, folder: Path | None = None) -> KnowledgeBase:
        """Read a source and index it: into an empty folder, or in memory where none is given.

        Raises
        ------
        UserError : the source is missing or unusable, or names a concept twice.
        """
        fingerprint = source.fingerprint(progress)
        writer, tally = StoreWriter(source.scopes, folder), Tally()
        for concept in source.concepts(tally, progress):
            if isinstance(concept, Concept):
                writer.add(concept)
            else:
                writer.leave_out(concept)
        for retirement in source.retirements(tally, progress):
            writer.retire(retirement)
        store = writer.finish(None if progress is None else lambda done, total: progress("indexing", done, total))
        report = replace(tally.report(source.name()), parents=writer.parents, parents_unknown=writer.parents_unknown)
        return cls(store, fingerprint, report, source.terms())

    @classmethod
    def of(
        cls, concepts: Iterable[Concept], scopes: Iterable[Scope] = ("EXACT",), name: str = "memory"
    ) -> KnowledgeBase:
        """Build a base of these concepts in memory. Its fingerprint is of their content."""
        writer, digest = StoreWriter(scopes), hashlib.sha256(repr(tuple(scopes)).encode())
        for concept in concepts:
            writer.add(concept)
            digest.update(repr(concept).encode())
        store = writer.finish()
        return cls(store, digest.hexdigest(), BuildReport(name, len(store.ids), len(store.ids)))

    def fingerprint(self) -> str:
        """sha256 over the source bytes and the filters."""
        return self._fingerprint

    @property
    def licence(self) -> str:
        """The terms that a file made from this base falls under, "" where there are none beyond naming the source."""
        return self.terms.licence

    @property
    def release(self) -> str:
        """The release as the source states it, or "not stated"."""
        return self.terms.release

    @property
    def number_of_names(self) -> int:
        """N: names that are matched, those of different concepts counted apart."""
        return len(self.store.surfaces)

    @property
    def concept_of_name(self) -> NDArray[np.int32]:
        """(N,) position of the concept that each name belongs to, ascending; read-only."""
        return self.store.name_concept

    @property
    def rank_of_name(self) -> NDArray[np.uint8]:
        """(N,) 0 for a preferred name, then by scope (1 EXACT to 4 RELATED); read-only."""
        return self.store.name_rank

    def surface(self, name: int) -> str:
        """Return one name, without punctuation at its ends."""
        return self.store.surfaces[name]

    def surfaces(self, names: range) -> list[str]:
        """Return the names of a range; with step 1 in one read."""
        if names.step == 1 and len(names):
            return self.store.surfaces.slice(names.start, names.stop)
        return [self.store.surfaces[name] for name in names]

    def names_of(self, position: int) -> range:
        """Return the names of the concept at a position."""
        return range(*self.store.first_name[position : position + 2].tolist())

    def position(self, concept_id: str) -> int:
        """Return where a concept stands in `concepts`.

        Raises
        ------
        KeyError : it is not in this base.
        """
        wanted = hash64(concept_id)
        place = bisect_left(self._id_hash, wanted)
        if place < len(self._id_hash) and self._id_hash[place] == wanted:
            position = self._id_position[place]
            if self.store.ids[position] == concept_id:
                return position
        raise KeyError(concept_id)

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, concept_id: str) -> Concept:
        return self.concepts[self.position(concept_id)]

    def __contains__(self, concept_id: object) -> bool:
        try:
            return isinstance(concept_id, str) and self.position(concept_id) >= 0
        except KeyError:
            return False

    def lookup(self, surface: str) -> tuple[Concept, ...]:
        """Return the concepts that this surface, taken as a whole, may mean: best first, () where it is unknown."""
        keys = surface_keys(surface)
        if keys is None:
            return ()
        tokens = tokenise(surface)
        key = key_of(tokens, 0, len(tokens.starts))
        found = self.index.select(self.index.find(key), key, keys.core)
        return tuple(self.concepts[self.index.concept(name)] for name in found)

    def ancestors(self, concept: Concept | str) -> tuple[str, ...]:
        """Return the ids of everything that this concept is a kind of, in order; never itself. Raises KeyError."""
        return self._ids(self.hierarchy.ancestors(self._position(concept)))

    def descendants(self, concept: Concept | str) -> tuple[str, ...]:
        """Return the ids of every kind of this concept, in order; never itself. Raises KeyError."""
        return self._ids(self.hierarchy.descendants(self._position(concept)))

    def replacements(self, concept_id: str) -> tuple[Replacement, ...]:
        """Return what stands for an identifier that a release dropped; () where it is in use or was never known."""
        return () if concept_id in self else self.retired.follow(concept_id)

    def _position(self, concept: Concept | str) -> int:
        return self.position(concept if isinstance(concept, str) else concept.id)

    def _ids(self, positions: NDArray[np.int32]) -> tuple[str, ...]:
        return tuple(self.store.ids[position] for position in positions.tolist())
