"""Phrases that an answer has to hold: it may not end before each has been written. A byte automaton.

A phrase is compared byte by byte, ASCII letters without regard to case: what is required has to stand as it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from r1core.api import Reason, UserError

MAX_PHRASES = 16  # in one answer; states are kept for each set of phrases met
MAX_KEPT = 64  # sets of phrases kept per vocabulary


class RequiredPhrases:
    """Refuses the end until every phrase has been written; implements `api.ByteAutomaton`.

    Raises
    ------
    UserError : for no phrase, an empty one, or too many.
    """

    start = 0

    def __init__(self, phrases: Mapping[str, Sequence[Reason]]) -> None:
        if not 0 < len(phrases) <= MAX_PHRASES or any(not phrase.strip() for phrase in phrases):
            raise UserError(
                f"required phrases: found {list(phrases)}, expected 1 to {MAX_PHRASES} texts that are not blank"
            )
        self._patterns = [phrase.encode().lower() for phrase in phrases]
        self._reasons = [tuple(reasons) for reasons in phrases.values()]
        self._all = (1 << len(phrases)) - 1
        self._states: list[tuple[int, bytes]] = []  # phrases met, and the text's end that may begin another
        self._ids: dict[tuple[int, bytes], int] = {}
        self._rows: dict[int, NDArray[np.int32]] = {}
        self._id((0, b""))

    def _id(self, state: tuple[int, bytes]) -> int:
        number = self._ids.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number

    def _next(self, state: tuple[int, bytes], byte: int) -> tuple[int, bytes]:
        met, begun = state
        begun += bytes([byte]).lower()
        for index, pattern in enumerate(self._patterns):
            if begun.endswith(pattern):
                met |= 1 << index
        waited = [p for i, p in enumerate(self._patterns) if not met >> i & 1]
        while begun and not any(p.startswith(begun) for p in waited):
            begun = begun[1:]
        return met, begun

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte; none is refused."""
        row = self._rows.get(state)
        if row is None:
            here = self._states[state]
            row = np.array([self._id(self._next(here, byte)) for byte in range(256)], dtype=np.int32)
            self._rows[state] = row
        return row

    def may_end(self, state: int) -> bool:
        """Whether every phrase has been written."""
        return self._states[state][0] == self._all

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The reasons of the phrases that are missing (b"": the end is refused); () for any bytes."""
        met = self._states[state][0]
        missing = [reasons for index, reasons in enumerate(self._reasons) if not met >> index & 1]
        return () if data else tuple(dict.fromkeys(reason for reasons in missing for reason in reasons))


def required(phrases: Mapping[str, Sequence[Reason]], kept: dict[str, object]) -> RequiredPhrases:
    """The automaton of these phrases, made once for each set and kept in `kept`."""
    made = kept.setdefault("phrases", {})
    assert isinstance(made, dict)
    key = tuple((phrase, tuple(reasons)) for phrase, reasons in phrases.items())
    if key not in made:
        if len(made) >= MAX_KEPT:
            made.clear()
        made[key] = RequiredPhrases(phrases)
    found = made[key]
    assert isinstance(found, RequiredPhrases)
    return found
