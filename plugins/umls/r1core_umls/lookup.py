"""Finds names by their key in a store: one hash, one bisection, and the strings compared."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
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

    def find(self, key: str) -> range | tuple[()]:
        """Return the places of the names that may stand under a key, () where none does; `select` compares strings."""
        hashes, wanted = self._key_hash, hash64(key)
        first = last = bisect_left(hashes, wanted)
        while last < len(hashes) and hashes[last] == wanted:
            last += 1
        return range(first, last) if last > first else ()

    def select(self, places: Iterable[int], key: str, text: str) -> list[int]:
        """Return the names at these places that `text`, whose key is `key`, may mean: best first, each concept once.

        Best is: written exactly like the name; then preferred name before synonym, and by scope; then the smaller
        concept id. The order never depends on the order in which a source lists its names.
        """
        found: dict[int, tuple[bool, int, int, int]] = {}
        for place in places:
            name = self._key_name[place]
            surface = self._surfaces[name]
            differs = surface != text
            if differs and (self._exact_only[name] or not self._has_key(name, surface, key, text)):
                continue
            concept = self._concept[name]
            order = (differs, self._rank[name], concept, name)
            known = found.get(concept)
            if known is None or order < known:
                found[concept] = order
        return [order[3] for order in sorted(found.values())]

    def _has_key(self, name: int, surface: str, key: str, text: str) -> bool:
        """Whether a name has this key, or only its hash. In ASCII, case is all that two equal texts may differ in."""
        if surface.isascii() and text.isascii() and surface.lower() == text.lower():
            return True
        return key in self._keys(name)

    def concept(self, name: int) -> int:
        """Return the position of the concept that a name belongs to."""
        return self._concept[name]

    def surface(self, name: int) -> str:
        """Return the name itself."""
        return self._surfaces[name]
