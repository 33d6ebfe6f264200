"""Tries over symbols, with bit sets: which classes end at a node, and which end somewhere below it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)


class Trie:
    """Strings with bit sets; node 0 is the root."""

    def __init__(self) -> None:
        self.children: list[dict[str, int]] = [{}]
        self.ends: list[int] = [0]
        self.below: list[int] = [0]

    def add(self, text: str, bits: int) -> None:
        """Add a string that carries these bits."""
        node = 0
        self.below[0] |= bits
        for sign in text:
            following = self.children[node].get(sign)
            if following is None:
                following = self.children[node][sign] = len(self.children)
                self.children.append({})
                self.ends.append(0)
                self.below.append(0)
            node = following
            self.below[node] |= bits
        self.ends[node] |= bits

    def next(self, node: int, sign: str) -> int:
        """The node behind a symbol, -1 where there is none."""
        return self.children[node].get(sign, -1)


class Numbering(Generic[Value]):
    """Small numbers for values, in the order in which they are met."""

    def __init__(self) -> None:
        self.of: dict[Value, int] = {}
        self.all: list[Value] = []

    def __call__(self, value: Value) -> int:
        """The number of a value; a new one where it was not met before."""
        found = self.of.get(value)
        if found is None:
            found = self.of[value] = len(self.all)
            self.all.append(value)
        return found
