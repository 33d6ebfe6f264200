"""Finds names by their key in a store: one hash, one bisection, and the strings compared."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

from r1core_umls.names import surface_keys
from r1core_umls.store import Store, hash64

KEYS_HELD, TOKENS_HELD = 16384, 65536  # recent names and first tokens that are kept: a few MB


class NameIndex:
    """The names of a store by their keys. A name is its position in `store.surfaces`."""

    def __init__(self, store: Store) -> None:
        self._surfaces = store.surfaces
        self._key_hash, self._key_name = store.key_hash.data, store.key_name.data
        self._first_hash, self._first_longest = store.first_hash.data, store.first_longest.data
        self._concept, self._rank = store.name_concept.data, store.name_rank.data
        self._exact_only = store.name_exact.data
        self.longest = lru_cache(TOKENS_HELD)(self._longest)
        self._keys = lru_cache(KEYS_HELD)(self._keys_of)

    def _longest(self, token: str) -> int:
        """Return the most tokens of any name that begins with this one, 0 where none does."""
        wanted = hash64(token)
        place = bisect_left(self._first_hash, wanted)
        # Two tokens with one hash share the larger limit, which costs a probe and changes no answer.
        return self._first_longest[place] if place < len(self._first_hash) and self._first_hash[place] == wanted else 0

    def _keys_of(self, name: int) -> tuple[str, ...]:
        keys = surface_keys(self._surfaces[name])
        return keys.keys if keys is not None else ()

    def find(self, key: str) -> list[int]:
        """Return the names that stand under a key, by concept and then by surface; [] where it is unknown."""
        hashes, wanted = self._key_hash, hash64(key)
        place = bisect_left(hashes, wanted)
        found: list[int] = []
        while place < len(hashes) and hashes[place] == wanted:
            name = self._key_name[place]
            if key in self._keys(name):
                found.append(name)
            place += 1
        return found

    def select(self, names: list[int], text: str) -> list[int]:
        """Return those of `names`, all of one key, that `text` may mean: best first, each concept once.

        Best is: written exactly like the name; then preferred name before synonym, and by scope; then the smaller
        concept id. The order never depends on the order in which a source lists its names.
        """
        found: dict[int, tuple[bool, int, int, int]] = {}
        for name in names:
            differs = self._surfaces[name] != text
            if differs and self._exact_only[name]:
                continue
            concept = self._concept[name]
            order = (differs, self._rank[name], concept, name)
            known = found.get(concept)
            if known is None or order < known:
                found[concept] = order
        return [order[3] for order in sorted(found.values())]

    def concept(self, name: int) -> int:
        """Return the position of the concept that a name belongs to."""
        return self._concept[name]

    def surface(self, name: int) -> str:
        """Return the name itself."""
        return self._surfaces[name]
