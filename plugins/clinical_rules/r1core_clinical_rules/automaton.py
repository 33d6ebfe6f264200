"""Forbidden names as a byte automaton over normalised text.

The state is (UTF-8 prefix pending, progress in long names, progress in short names). The full product would be
huge and almost all of it is never visited, so states are numbered and rows made when asked for, many at a time.
"""

# C = classes of characters, N = Aho-Corasick states, P = UTF-8 states, K = automaton states asked for at once

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import BOUNDARY, SHORT, SYMBOLS, normalise, short_patterns, tail
from r1core_clinical_rules.utf8 import decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CODE = {symbol: i for i, symbol in enumerate(SYMBOLS + BOUNDARY)}
_SEP = _CODE[BOUNDARY]
_PAD = len(_CODE)  # fills the classes' symbol strings to one length; leaves every state as it is
ASCII_ONLY = Reason("ascii-only", "clinical_rules: ascii_only", "a character outside ASCII")


class ForbiddenNames:
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
        self._reach = max([SHORT, *map(len, long)])
        self._ascii_only = ascii_only
        self._utf8 = decoder()
        self._long, self._long_step = self._compile(long, separators=False)
        self._short, self._short_step = self._compile([pattern for _, pattern in short], separators=True)
        self._ids: dict[int, int] = {}
        self._keys: list[int] = []
        self._lock = threading.Lock()
        begin = int(self._short.next[0, _SEP])  # the text begins at a boundary
        self.start = self._number(np.array([self._key(0, 0, begin)]))[0]

    def after(self, text: str) -> int:
        """The state of a new text behind `text`, which may hold names itself: one begun in it may not be completed.

        The two count as separated by a boundary, as two messages of a conversation are.
        """
        long = short = 0
        for symbol in tail(text, self._reach) + BOUNDARY:
            long, short = int(self._long.next[long, _CODE[symbol]]), int(self._short.next[short, _CODE[symbol]])
        return self._number(np.array([self._key(0, long, short)]))[0]

    def _compile(self, patterns: Sequence[str], *, separators: bool) -> tuple[AhoCorasick, NDArray[np.int32]]:
        """Return the matcher and its (N, C) step per class of character, -1 where a pattern would be completed."""
        matcher = AhoCorasick([[_CODE[c] for c in pattern] for pattern in patterns], _PAD + 1)
        every = np.arange(len(matcher.next), dtype=np.int32)
        matcher.next[:, _PAD] = every
        if separators:
            after = matcher.last == _SEP
            matcher.next[after, _SEP] = every[after]  # a run of boundaries is one
        else:
            matcher.next[:, _SEP] = every
        idle = np.zeros(matcher.next.shape, dtype=bool)  # steps that are none: a name completed before is not completed
        idle[:, _PAD] = True
        idle[matcher.last == _SEP if separators else slice(None), _SEP] = True
        classes = self._utf8.classes
        codes = np.full((max(map(len, classes)), len(classes)), _PAD, dtype=np.int64)
        for i, text in enumerate(classes):
            codes[: len(text), i] = [_CODE[c] for c in text]
        step = np.repeat(every[:, None], len(classes), axis=1)
        completed = np.zeros(step.shape, dtype=bool)
        for row in codes:
            longer = np.flatnonzero(row != _PAD)
            before = step[:, longer]
            step[:, longer] = following = matcher.next[before, row[longer]]
            completed[:, longer] |= matcher.final[following] & ~idle[before, row[longer]]
        step[completed] = -1
        return matcher, step

    def _key(self, pending: int, long: int, short: int) -> int:
        return (pending * len(self._long.next) + long) * len(self._short.next) + short

    def _parts(self, state: int) -> tuple[int, int, int]:
        """The UTF-8 state, the state in long and the state in short names that a state stands for."""
        rest, short = divmod(self._keys[state], len(self._short.next))
        return (*divmod(rest, len(self._long.next)), short)

    def _number(self, keys: NDArray[np.int64]) -> list[int]:
        """Return the states of these keys, numbering the new ones."""
        with self._lock:
            numbers = []
            for key in keys.tolist():
                number = self._ids.setdefault(key, len(self._keys))
                if number == len(self._keys):
                    self._keys.append(key)
                numbers.append(number)
            return numbers

    def _next_keys(
        self, pending: NDArray[np.int64], long: NDArray[np.int64], short: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """(K, 256) keys of the next states, -1 where the byte is refused; the arguments are (K,)."""
        width, area = len(self._short.next), len(self._long.next) * len(self._short.next)
        step_long, step_short = self._long_step[long], self._short_step[short]
        by_class = step_long.astype(np.int64) * width + step_short
        by_class[(step_long < 0) | (step_short < 0)] = -1
        target, klass = self._utf8.target[pending], self._utf8.klass[pending]
        keys = np.take_along_axis(by_class, np.maximum(klass, 0).astype(np.int64), axis=1)
        waits = target >= 0
        keys[waits] = (target.astype(np.int64) * area + (long * width + short)[:, None])[waits]
        inside = np.flatnonzero(pending)
        if len(inside):  # where the character begun is broken off, a boundary comes before the byte
            after = step_short[inside, 0].astype(np.int64)  # class 0 is the boundary
            afresh = self._next_keys(np.zeros_like(inside), long[inside], np.maximum(after, 0))
            afresh[after < 0] = -1
            keys[inside] = np.where(waits[inside] | (klass[inside] >= 0), keys[inside], afresh)
        if self._ascii_only:
            keys[:, 0x80:] = -1
        return keys

    def rows(self, states: Sequence[int]) -> NDArray[np.int32]:
        """(K, 256) int32: `row` for several states at once, which costs little more than for one."""
        pending, long, short = np.array([self._parts(state) for state in states], dtype=np.int64).T
        unique, inverse = np.unique(self._next_keys(pending, long, short), return_inverse=True)
        refused = int(unique[0] < 0)
        numbers = np.array([-1] * refused + self._number(unique[refused:]), dtype=np.int32)
        return numbers[inverse].reshape(len(states), 256)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where it would complete a forbidden name."""
        row: NDArray[np.int32] = self.rows([state])[0]
        return row

    def may_end(self, state: int) -> bool:
        """Whether the end of the text, being a boundary, completes no short name."""
        return bool(self._short_step[self._parts(state)[2], 0] >= 0)

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
        _, long, short = self._parts(state)
        found: dict[Reason, None] = {}
        for symbol in symbols:
            was_short, code = short, _CODE[symbol]
            long, short = int(self._long.next[long, code]), int(self._short.next[short, code])
            if symbol != BOUNDARY:  # a boundary is no step in a long name
                for index in self._long.outputs[long]:
                    found.update(dict.fromkeys(self._long_reasons[index]))
            if symbol != BOUNDARY or self._short.last[was_short] != _SEP:
                for index in self._short.outputs[short]:
                    found.update(dict.fromkeys(self._short_reasons[index]))
        return tuple(found)
