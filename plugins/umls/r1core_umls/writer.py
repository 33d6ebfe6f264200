"""Builds a store from a stream of concepts: the blobs go to disk as they come, the columns stay in memory.

Columns take about 45 bytes a name and 40 a concept, and as much again while they are sorted. Concepts that do not come
in the order of their ids are put in order at the end, which reads the blobs back into memory.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_umls.concepts import SCOPES, Concept, LeftOut, Retirement, Scope
from r1core_umls.names import SurfaceKeys, is_acronym, surface_keys
from r1core_umls.relations import Outer, hierarchy_tables
from r1core_umls.store import STRINGS, Store, Strings, hash64, open_store

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Tables = dict[str, NDArray[Any]]
SCOPE_RANK = {scope: 1 + place for place, scope in enumerate(SCOPES)}


class Blob:
    """Strings that are being written, to a file or to memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: BinaryIO = io.BytesIO() if path is None else path.open("w+b")
        self._ends = array("q", [0])
        self._end = 0

    def append(self, text: bytes) -> None:
        """Add one string."""
        self._file.write(text)
        self._end += len(text)
        self._ends.append(self._end)

    def strings(self) -> Strings:
        """Return what is written so far."""
        self._file.flush()
        self._file.seek(0)
        # A file is mapped again by `open_store`; here it is read back only where concepts came out of order.
        return Strings(self._file.read(), np.frombuffer(self._ends, np.int64))

    def reorder(self, order: NDArray[np.integer]) -> None:
        """Put string `order[i]` at place i."""
        old = self.strings()
        self._file.seek(0)
        self._file.truncate()
        self._ends, self._end = array("q", [0]), 0
        for position in order.tolist():
            self.append(old.raw(position))

    def close(self) -> Strings:
        """Finish; the strings of a file are left to whoever maps it, and come back without their bytes."""
        if self.path is None:
            return self.strings()
        self._file.close()
        return Strings(b"", np.frombuffer(self._ends, np.int64))


@dataclass(slots=True)
class Name:
    """One name of a concept, prepared for the index."""

    rank: int
    exact_only: int
    keys: SurfaceKeys


def matched_names(concept: Concept, scopes: frozenset[Scope]) -> dict[str, Name]:
    """Return the names of these scopes by their surface, in its order; of equal ones the best rank."""
    named = [(concept.name, 0, "")]
    named += [(s.text, SCOPE_RANK[s.scope], s.kind) for s in concept.synonyms if s.scope in scopes]
    names: dict[str, Name] = {}
    for text, rank, kind in named:
        keys = surface_keys(text)
        if keys is None:
            continue
        exact_only = int(kind == "abbreviation" or is_acronym(keys.core))
        known = names.get(keys.core)
        if known is None or (rank, exact_only) < (known.rank, known.exact_only):
            names[keys.core] = Name(rank, exact_only, keys)
    return dict(sorted(names.items()))


class StoreWriter:
    """Takes concepts in any order, each id once.

    Parameters
    ----------
    scopes : synonyms of these scopes are matched.
    folder : an empty folder to write to; None keeps everything in memory.
    """

    def __init__(self, scopes: Iterable[Scope], folder: Path | None = None) -> None:
        self._folder = folder
        self._scopes = frozenset(scopes)
        self._blobs = {name: Blob(folder / f"{name}.bin" if folder else None) for name in STRINGS}
        self._last, self._ordered = b"", True
        self._first_name = array("i", [0])
        self._id_hash = array("Q")
        self._rank, self._exact = bytearray(), bytearray()
        self._key_hash, self._key_name = array("Q"), array("i")
        self._first_hash, self._first_count = array("Q"), array("H")
        self._child, self._parent_hash = array("i"), array("Q")
        self._outer_child, self._outer_parent = array("Q"), array("Q")
        self._retired: list[bytes] = []
        self.parents = self.parents_unknown = 0

    def add(self, concept: Concept) -> None:
        """Write one concept and index its names."""
        identifier = concept.id.encode()
        self._ordered = self._ordered and identifier > self._last
        self._last = identifier
        position = len(self._id_hash)
        self._blobs["ids"].append(identifier)
        self._id_hash.append(hash64(concept.id))
        synonyms = [(s.text, SCOPE_RANK[s.scope], s.kind) for s in concept.synonyms]
        record = (concept.name, synonyms, concept.cuis, concept.semantic_types, concept.definition)
        self._blobs["records"].append(_encode(record).encode())
        for surface, name in matched_names(concept, self._scopes).items():
            self._add_name(surface, name)
        self._first_name.append(len(self._rank))
        for parent in concept.parents:
            self._child.append(position)
            self._parent_hash.append(hash64(parent))

    def leave_out(self, concept: LeftOut) -> None:
        """Note what lies above a concept that is not written."""
        child = hash64(concept.id)
        for parent in concept.parents:
            self._outer_child.append(child)
            self._outer_parent.append(hash64(parent))

    def _add_name(self, surface: str, name: Name) -> None:
        for key in name.keys.keys:
            self._key_hash.append(hash64(key))
            self._key_name.append(len(self._rank))
        self._first_hash.append(hash64(name.keys.first))
        self._first_count.append(min(name.keys.count, 2**16 - 1))
        self._blobs["surfaces"].append(surface.encode())
        self._rank.append(name.rank)
        self._exact.append(name.exact_only)

    def retire(self, retirement: Retirement) -> None:
        """Record an identifier that is no longer in use."""
        self._retired.append(f"{retirement.id}\0{retirement.relation} {retirement.target}".encode())

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Store:
        """Sort, write what is not written yet, and return the store, mapped where it stands in a folder.

        Raises
        ------
        UserError : two concepts have the same id.
        """
        steps = (self._ids, self._names, self._keys, self._firsts, self._hierarchy, self._retirements)
        tables: Tables = {}
        if not self._ordered:
            self._reorder()
        for done, step in enumerate(steps):
            if progress is not None:
                progress(done, len(steps))
            tables |= step(tables)
        strings = {name: blob.close() for name, blob in self._blobs.items()}
        if self._folder is None:
            for table in tables.values():
                table.setflags(write=False)  # as a mapped one is
            return Store(**tables, **strings)  # type: ignore[arg-type]
        for name, table in (tables | {name: text.offsets for name, text in strings.items()}).items():
            np.save(self._folder / f"{name}.npy", table, allow_pickle=False)
        return open_store(self._folder)

    def _reorder(self) -> None:
        """Bring everything into the order of the ids."""
        ids = self._blobs["ids"].strings()
        order = np.array(sorted(range(len(ids)), key=ids.raw), np.int32)
        first = np.frombuffer(self._first_name, np.int32)
        counts = np.diff(first)[order]
        ends = np.cumsum(counts)
        name_order = np.arange(first[-1]) + np.repeat(first[order] - (ends - counts), counts)
        self._blobs["ids"].reorder(order)
        self._blobs["records"].reorder(order)
        self._blobs["surfaces"].reorder(name_order)
        self._first_name = array("i", np.concatenate([[0], ends]).astype(np.int32).tobytes())
        self._id_hash = array("Q", np.frombuffer(self._id_hash, np.uint64)[order].tobytes())
        self._rank = bytearray(np.frombuffer(self._rank, np.uint8)[name_order].tobytes())
        self._exact = bytearray(np.frombuffer(self._exact, np.uint8)[name_order].tobytes())
        self._key_name = array("i", _inverse(name_order)[np.frombuffer(self._key_name, np.int32)].tobytes())
        self._child = array("i", _inverse(order)[np.frombuffer(self._child, np.int32)].tobytes())

    def _ids(self, _: Tables) -> Tables:
        hashes = np.frombuffer(self._id_hash, np.uint64)
        order = np.argsort(hashes, kind="stable")
        twice = np.flatnonzero(np.diff(hashes[order]) == 0)
        if twice.size:
            identifier = self._blobs["ids"].strings()[int(order[twice[0]])]
            raise UserError(
                f"{identifier} comes twice; all that is said of a concept must stand together",
                fix="sort the file by its first column (LC_ALL=C sort FILE -o FILE), or join the lines of one concept",
            )
        return {"id_hash": hashes[order], "id_position": order.astype(np.int32)}

    def _names(self, _: Tables) -> Tables:
        first = np.frombuffer(self._first_name, np.int32)
        return {
            "first_name": first,
            "name_concept": np.repeat(np.arange(len(first) - 1, dtype=np.int32), np.diff(first)),
            "name_rank": np.frombuffer(self._rank, np.uint8),
            "name_exact": np.frombuffer(self._exact, np.uint8),
        }

    def _keys(self, _: Tables) -> Tables:
        hashes, names = np.frombuffer(self._key_hash, np.uint64), np.frombuffer(self._key_name, np.int32)
        order = np.lexsort((names, hashes))
        return {"key_hash": hashes[order], "key_name": names[order]}

    def _firsts(self, _: Tables) -> Tables:
        hashes, counts = np.frombuffer(self._first_hash, np.uint64), np.frombuffer(self._first_count, np.uint16)
        order = np.argsort(hashes, kind="stable")
        unique, starts = np.unique(hashes[order], return_index=True)
        longest = np.maximum.reduceat(counts[order], starts) if starts.size else counts
        return {"first_hash": unique, "first_longest": longest}

    def _hierarchy(self, tables: Tables) -> Tables:
        child, wanted = np.frombuffer(self._child, np.int32), np.frombuffer(self._parent_hash, np.uint64)
        hashes, positions = tables["id_hash"], tables["id_position"]
        # A parent outside of the base that shares all 64 bits with one inside: 1 in 10^12 even at 3.5 million concepts.
        known = np.isin(wanted, hashes)
        outer = Outer(hashes, np.frombuffer(self._outer_child, np.uint64), np.frombuffer(self._outer_parent, np.uint64))
        bridges = [outer.nearest(parent) for parent in wanted[~known].tolist()]
        self.parents_unknown = sum(not places for places in bridges)
        bridged = np.repeat(child[~known], [len(places) for places in bridges])
        places = np.concatenate([np.searchsorted(hashes, wanted[known]), *bridges]).astype(np.int64)
        found = hierarchy_tables(np.concatenate([child[known], bridged]), positions[places], len(hashes))
        self.parents = len(found["parents"])
        return found

    def _retirements(self, _: Tables) -> Tables:
        rows = (row.split(b"\0") for row in sorted(set(self._retired)))
        for identifier, targets in groupby(rows, key=itemgetter(0)):
            self._blobs["retired_ids"].append(identifier)
            self._blobs["retired_targets"].append(b"\n".join(target for _, target in targets))
        return {}


def _inverse(order: NDArray[np.integer]) -> NDArray[np.int32]:
    inverse = np.empty(len(order), np.int32)
    inverse[order] = np.arange(len(order), dtype=np.int32)
    return inverse
