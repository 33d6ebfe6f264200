"""Is-a pairs between concepts, and the replacements of identifiers that are no longer in use.

A hierarchy may hold cycles (the vocabularies of a Metathesaurus contradict each other): a walk visits every concept
once and never returns its start.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from r1core_umls.store import Store

SAME, DELETED = "SY", "DEL"
NARROWING = ("RB", "RN")  # a chain of broader ones is broader; mixed, all that is left is "related"


def hierarchy_tables(
    child: NDArray[np.integer], parent: NDArray[np.integer], concepts: int
) -> dict[str, NDArray[np.integer]]:
    """Return each pair once, both ways, as compressed sparse rows; no concept is its own parent."""
    apart = child != parent
    pairs = np.unique(child[apart].astype(np.int64) * concepts + parent[apart])
    child, parent = np.divmod(pairs, max(1, concepts))
    upward = np.argsort(parent, kind="stable")
    bounds = np.arange(concepts + 1)
    return {
        "parent_offsets": np.searchsorted(child, bounds).astype(np.int64),
        "parents": parent.astype(np.int32),
        "child_offsets": np.searchsorted(parent[upward], bounds).astype(np.int64),
        "children": child[upward].astype(np.int32),
    }


class Outer:
    """Concepts outside of a base, by the hash of their id, with what lies above them.

    Parameters
    ----------
    inside : (C,) hashes of the ids in the base, ascending.
    child, parent : hashes of pairs whose child is outside.
    """

    def __init__(self, inside: NDArray[np.uint64], child: NDArray[np.uint64], parent: NDArray[np.uint64]) -> None:
        order = np.argsort(child, kind="stable")
        self._inside, self._child, self._parent = inside.data, child[order].data, parent[order].data
        self.nearest = cache(self._nearest)

    def _nearest(self, identifier: int) -> tuple[int, ...]:
        """Return where in `inside` the nearest concepts above an outer one stand."""
        found: set[int] = set()
        pending, seen = [identifier], {identifier}
        while pending:
            node = pending.pop()
            place = bisect_left(self._child, node)
            while place < len(self._child) and self._child[place] == node:
                parent = self._parent[place]
                inside = bisect_left(self._inside, parent)
                if inside < len(self._inside) and self._inside[inside] == parent:
                    found.add(inside)
                elif parent not in seen:
                    seen.add(parent)
                    pending.append(parent)
                place += 1
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Replacement:
    """What stands for a dropped identifier: `id` ("" where nothing does) and how it relates to the dropped one.

    `relation` : `SY` the same concept, `RB` broader, `RN` narrower, `RO` related, `DEL` deleted, `SUBX` not in this
    subset. Over several steps it is the loosest claim that all of them bear out.
    """

    id: str
    relation: str


class Hierarchy:
    """Walks over the is-a pairs of a store, by position."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def parents(self, position: int) -> list[int]:
        """Return the direct parents, ascending."""
        offsets = self._store.parent_offsets
        return self._store.parents[offsets[position] : offsets[position + 1]].tolist()

    def children(self, position: int) -> list[int]:
        """Return the direct children, ascending."""
        offsets = self._store.child_offsets
        return self._store.children[offsets[position] : offsets[position + 1]].tolist()

    def ancestors(self, position: int) -> NDArray[np.int32]:
        """Return the positions of everything above, ascending; (0,) at a root."""
        return _walk(position, self._store.parent_offsets, self._store.parents)

    def descendants(self, position: int) -> NDArray[np.int32]:
        """Return the positions of everything below, ascending; (0,) at a leaf."""
        return _walk(position, self._store.child_offsets, self._store.children)


def _walk(start: int, offsets: NDArray[np.int64], targets: NDArray[np.int32]) -> NDArray[np.int32]:
    seen, frontier = {start}, [start]
    while frontier:
        reached: set[int] = set()
        for position in frontier:
            reached.update(targets[offsets[position] : offsets[position + 1]].tolist())
        frontier = list(reached - seen)
        seen |= reached
    seen.discard(start)
    return np.array(sorted(seen), np.int32)


class Retired:
    """The dropped identifiers of a store and what replaced them."""

    def __init__(self, store: Store) -> None:
        self._ids, self._targets = store.retired_ids, store.retired_targets

    def __len__(self) -> int:
        return len(self._ids)

    def direct(self, identifier: str) -> list[Replacement]:
        """Return what the release itself says of an identifier: [] where it was never dropped."""
        wanted = identifier.encode()
        place = bisect_left(range(len(self._ids)), wanted, key=self._ids.raw)
        if place == len(self._ids) or self._ids.raw(place) != wanted:
            return []
        rows = [line.partition(" ") for line in self._targets[place].split("\n")]
        return [Replacement(target, relation) for relation, _, target in rows]

    def follow(self, identifier: str) -> tuple[Replacement, ...]:
        """Return what an identifier stands for today, over as many steps as it takes; () where it was never dropped.

        A target that was dropped in its turn is followed; one that leads back to where it came from ends as `DEL`.
        Ordered by relation (`SY` first), then id.
        """
        found: dict[str, str] = {}
        pending, seen = [Replacement(identifier, SAME)], {identifier}
        while pending:
            step = pending.pop()
            for target in self.direct(step.id):
                relation = _chained(step.relation, target.relation)
                if target.id and self.direct(target.id):
                    if target.id not in seen:
                        seen.add(target.id)
                        pending.append(Replacement(target.id, relation))
                elif target.id not in found or _order(relation) < _order(found[target.id]):
                    found[target.id] = relation
        if len(found) > 1:
            found.pop("", None)  # one way ends in a deletion, another in a concept
        if not found and self.direct(identifier):
            found[""] = DELETED
        ordered = sorted(found.items(), key=lambda item: (_order(item[1]), item[0]))
        return tuple(Replacement(target, relation) for target, relation in ordered)


def _chained(first: str, then: str) -> str:
    if SAME in (first, then):
        return then if first == SAME else first
    if then in (DELETED, "SUBX"):
        return then
    return first if first == then and first in NARROWING else "RO"


def _order(relation: str) -> int:
    return (SAME, "RB", "RN", "RO", "SUBX", DELETED).index(relation)
