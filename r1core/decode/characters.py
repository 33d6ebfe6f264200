"""Whole characters: a byte automaton that lets through valid UTF-8 only.

For vocabularies with sentencepiece's byte fallback, whose decoder shows a broken run of byte tokens as replacement
characters, the letters in it included: there, broken bytes would make the text another than the constraints saw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from r1core.api import Reason

_REASON = Reason("utf-8", "r1core: constrained text is whole characters", "a broken character")
# state -> (first, past the last byte) -> next state; 0 stands between characters (Unicode 16, table 3-7)
_TABLE: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0x00, 0x80, 0), (0xC2, 0xE0, 1), (0xE0, 0xE1, 4), (0xE1, 0xED, 2), (0xED, 0xEE, 5), (0xEE, 0xF0, 2),
     (0xF0, 0xF1, 6), (0xF1, 0xF4, 3), (0xF4, 0xF5, 7)),
    ((0x80, 0xC0, 0),),
    ((0x80, 0xC0, 1),),
    ((0x80, 0xC0, 2),),
    ((0xA0, 0xC0, 1),),
    ((0x80, 0xA0, 1),),
    ((0x90, 0xC0, 2),),
    ((0x80, 0x90, 2),),
)  # fmt: skip


class WholeCharacters:
    """Refuses the byte that breaks a character, and the end inside one; implements `api.ByteAutomaton`."""

    start = 0
    trims = True

    def __init__(self) -> None:
        self._rows = np.full((len(_TABLE), 256), -1, dtype=np.int32)
        for state, steps in enumerate(_TABLE):
            for first, past, following in steps:
                self._rows[state, first:past] = following

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where it breaks a character."""
        row: NDArray[np.int32] = self._rows[state]
        return row

    def may_end(self, state: int) -> bool:
        """Whether the text stands between characters."""
        return state == 0

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The one reason, where a character is broken."""
        for byte in data:
            state = int(self._rows[state, byte])
            if state < 0:
                return (_REASON,)
        return (_REASON,) if not data and state else ()


WHOLE_CHARACTERS = WholeCharacters()
