"""UTF-8 decoding as a small automaton that tells, at the last byte of each character, what the character stands for.

Prefixes of characters with equal futures share a state (all of CJK is one), so a few hundred states cover Unicode.
Bytes that are no valid UTF-8 count as one boundary, as a decoder's replacement character would.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core_clinical_rules.characters import ALPHABET, BOUNDARY, symbols_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Code points that can stand for a symbol or for nothing; all others (CJK, Hangul, private use) are boundaries.
_LISTED = (range(0x0000, 0x3400), range(0xA000, 0xAC00), range(0xF900, 0x20000), range(0xE0000, 0xE1000))
_CONTINUATION = slice(0x80, 0xC0)
# The second bytes that UTF-8 allows after these leads (no overlong forms, no surrogates, nothing past U+10FFFF).
_SECOND = {0xE0: (0xA0, 0xC0), 0xED: (0x80, 0xA0), 0xF0: (0x90, 0xC0), 0xF4: (0x80, 0x90)}


class Utf8:
    """The decoding automaton; state 0 stands between characters.

    Attributes
    ----------
    classes : what characters can stand for, each a string over symbols and boundaries; first those of one, in the order
        of `ALPHABET`, which are all that ASCII and bytes that are no UTF-8 come to.
    target : (P, 256) int32, the next state where a byte does not complete a character, else -1.
    klass : (P, 256) int32, the class of the character that a byte completes, else -1. Both -1: the byte does not
        continue the character begun, which then counts as a boundary, and the byte is read again in state 0.
    """

    def __init__(self) -> None:
        self.classes = list(ALPHABET)
        known = {symbol: i for i, symbol in enumerate(ALPHABET)}
        boundary = known[BOUNDARY]
        per_point = np.full(0x110000, boundary, dtype=np.int32)
        for points in _LISTED:
            for point in points:
                text = symbols_of(chr(point))
                if text not in known:
                    known[text] = len(self.classes)
                    self.classes.append(text)
                per_point[point] = known[text]
        self._targets: list[NDArray[np.int32]] = []
        self._klasses: list[NDArray[np.int32]] = []
        self._seen: dict[bytes, int] = {}
        self._build(per_point, boundary)
        self.target, self.klass = np.stack(self._targets), np.stack(self._klasses)

    def _build(self, per_point: NDArray[np.int32], boundary: int) -> None:
        nothing = np.full(256, -1, dtype=np.int32)
        root_target, root_class = nothing.copy(), np.full(256, boundary, dtype=np.int32)  # a stray byte is one
        root_class[:0x80] = per_point[:0x80]
        self._targets.append(root_target)
        self._klasses.append(root_class)
        blocks = {block.tobytes(): block for block in per_point.reshape(-1, 64)}
        leaves = {key: self._leaf(block) for key, block in blocks.items()}
        last = [leaves[block.tobytes()] for block in per_point.reshape(-1, 64)]  # by code point >> 6
        for lead in range(0xC2, 0xE0):
            root_target[lead] = last[lead & 0x1F]
        for lead in range(0xE0, 0xF0):
            root_target[lead] = self._inner(last[(lead & 0xF) * 64 : (lead & 0xF) * 64 + 64], lead)
        for lead in range(0xF0, 0xF5):
            plane = [self._inner(last[i * 64 : i * 64 + 64], 0) for i in self._groups(lead)]
            full = [-1] * (64 - len(plane)) + plane if lead == 0xF0 else plane + [-1] * (64 - len(plane))
            root_target[lead] = self._inner(full, lead)
        root_class[root_target >= 0] = -1

    @staticmethod
    def _groups(lead: int) -> range:
        """The 4096-point groups under a four-byte lead."""
        low, high = _SECOND.get(lead, (0x80, 0xC0))
        return range(((lead & 7) << 6) | (low & 0x3F), ((lead & 7) << 6) + (high - 0x80))

    def _leaf(self, block: NDArray[np.int32]) -> int:
        klass = np.full(256, -1, dtype=np.int32)
        klass[_CONTINUATION] = block
        return self._state(np.full(256, -1, dtype=np.int32), klass)

    def _inner(self, following: list[int], lead: int) -> int:
        target = np.full(256, -1, dtype=np.int32)
        target[_CONTINUATION] = following
        low, high = _SECOND.get(lead, (0x80, 0xC0))
        target[:low], target[high:] = -1, -1
        return self._state(target, np.full(256, -1, dtype=np.int32))

    def _state(self, target: NDArray[np.int32], klass: NDArray[np.int32]) -> int:
        key = target.tobytes() + klass.tobytes()
        if key not in self._seen:
            self._seen[key] = len(self._targets)
            self._targets.append(target)
            self._klasses.append(klass)
        return self._seen[key]


@lru_cache(maxsize=1)
def decoder() -> Utf8:
    """The one instance; building it looks at 100,000 characters, once."""
    return Utf8()
