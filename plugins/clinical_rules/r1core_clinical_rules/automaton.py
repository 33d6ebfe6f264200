"""Forbidden names as a byte automaton over normalised text.

The inner state is (progress in long names, progress in short names).
"""

# C = classes of characters, N = Aho-Corasick states, K = automaton states asked for at once

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import BOUNDARY, SHORT, normalise, short_patterns, tail
from r1core_clinical_rules.symbol_automaton import CODE, PAD, SEP, SymbolAutomaton, class_codes, matcher_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASCII_ONLY = Reason("ascii-only", "clinical_rules: ascii_only", "a character outside ASCII")


class ForbiddenNames(SymbolAutomaton):
    """Refuses the byte that would complete a forbidden name; implements `api.ByteAutomaton`.

    Parameters
    ----------
    names : name as listed -> the reasons why it is forbidden. Names of at least `SHORT` symbols are found
        anywhere, across any separators; shorter ones as a whole word, or with every letter apart.
    ascii_only : refuse every byte outside ASCII as well, so that no look-alike can be written at all.

    Raises
    ------
    ValueError : for a name without any symbol.
    """

    trims = True  # a text that may not end here may be cut back to where it may

    def __init__(self, names: Mapping[str, Sequence[Reason]], *, ascii_only: bool = False) -> None:
        reasons: dict[str, dict[Reason, None]] = {}
        for name, why in names.items():
            spelled = normalise(name)
            if not spelled:
                raise ValueError(f"the name {name!r} holds no letter or digit")
            reasons.setdefault(spelled, {}).update(dict.fromkeys(why))
        long = [name for name in reasons if len(name) >= SHORT]
        short = [(name, pattern) for name in reasons if len(name) < SHORT for pattern in short_patterns(name)]
        self._long_reasons = [tuple(reasons[name]) for name in long]
        self._short_reasons = [tuple(reasons[name]) for name, _ in short]
        self._long = matcher_of(long, separators=False)
        self._short = matcher_of([pattern for _, pattern in short], separators=True)
        self._long_step = _steps(self._long, separators=False)
        self._short_step = _steps(self._short, separators=True)
        self._reach = max([SHORT, *map(len, long)])
        self._ascii_only = ascii_only
        begin = int(self._short.next[0, SEP])  # the text begins at a boundary
        super().__init__(len(self._long.next) * len(self._short.next), begin)

    def after(self, text: str) -> int:
        """The state of a new text behind `text`, which may hold names itself: one begun in it may not be completed.

        The two count as separated by a boundary, as two messages of a conversation are.
        """
        long = short = 0
        for symbol in tail(text, self._reach) + BOUNDARY:
            long, short = int(self._long.next[long, CODE[symbol]]), int(self._short.next[short, CODE[symbol]])
        return self._number(np.array([long * len(self._short.next) + short]))[0]

    def _next_keys(self, pending: NDArray[np.int64], inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 256) keys of the next states, -1 where the byte is refused."""
        keys = super()._next_keys(pending, inner)
        if self._ascii_only:
            keys[:, 0x80:] = -1
        return keys

    def _halves(self, inner: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        long, short = np.divmod(inner, len(self._short.next))
        return long, short

    def _by_class(self, inner: NDArray[np.int64]) -> NDArray[np.int64]:
        long, short = self._halves(inner)
        step_long, step_short = self._long_step[long], self._short_step[short]
        found = step_long.astype(np.int64) * len(self._short.next) + step_short
        found[(step_long < 0) | (step_short < 0)] = -1
        return found

    def may_end(self, state: int) -> bool:
        """Whether the end of the text, being a boundary, completes no short name."""
        return bool(self._short_step[self._parts(state)[1] % len(self._short.next), 0] >= 0)

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The rules whose name `data` would complete in `state` (b"": ending would); () when none."""
        if not data:
            return self._completed(state, BOUNDARY)
        for byte in data:
            following = int(self.row(state)[byte])
            if following < 0 and self._ascii_only and byte >= 0x80:
                return (ASCII_ONLY,)
            if following < 0:
                return self._completed(state, self._emitted(self._parts(state)[0], byte))
            state = following
        return ()

    def _emitted(self, pending: int, byte: int) -> str:
        """What the text gains in symbols by this byte."""
        klass = int(self._utf8.klass[pending, byte])
        if klass >= 0:
            return self._utf8.classes[klass]
        if self._utf8.target[pending, byte] >= 0:
            return ""
        return BOUNDARY + self._emitted(0, byte)

    def _completed(self, state: int, symbols: str) -> tuple[Reason, ...]:
        long, short = divmod(self._parts(state)[1], len(self._short.next))
        found: dict[Reason, None] = {}
        for symbol in symbols:
            was_short, code = short, CODE[symbol]
            long, short = int(self._long.next[long, code]), int(self._short.next[short, code])
            if symbol != BOUNDARY:  # a boundary is no step in a long name
                for index in self._long.outputs[long]:
                    found.update(dict.fromkeys(self._long_reasons[index]))
            if symbol != BOUNDARY or self._short.last[was_short] != SEP:
                for index in self._short.outputs[short]:
                    found.update(dict.fromkeys(self._short_reasons[index]))
        return tuple(found)


def _steps(matcher: AhoCorasick, *, separators: bool) -> NDArray[np.int32]:
    """(N, C) the state after a character of each class, -1 where a pattern would be completed."""
    idle = np.zeros(matcher.next.shape, dtype=bool)  # steps that are none: a name completed before is not completed
    idle[:, PAD] = True
    idle[matcher.last == SEP if separators else slice(None), SEP] = True
    codes = class_codes()
    step = np.repeat(np.arange(len(matcher.next), dtype=np.int32)[:, None], codes.shape[1], axis=1)
    completed = np.zeros(step.shape, dtype=bool)
    for row in codes:
        longer = np.flatnonzero(row != PAD)
        before = step[:, longer]
        step[:, longer] = following = matcher.next[before, row[longer]]
        completed[:, longer] |= matcher.final[following] & ~idle[before, row[longer]]
    step[completed] = -1
    return step
