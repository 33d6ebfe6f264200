"""What both automata share: they read bytes as UTF-8 and move on the symbols that each character stands for.

A state is (UTF-8 prefix pending, inner state). The full product would be huge and almost all of it is never visited, so
states are numbered and rows made when asked for, many at a time.
"""

# C = classes of characters, K = automaton states asked for at once, N = Aho-Corasick states

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import BOUNDARY, SPACE, SYMBOLS
from r1core_clinical_rules.utf8 import decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE = {symbol: i for i, symbol in enumerate(SYMBOLS + BOUNDARY + SPACE)}
SEP, BLANK = CODE[BOUNDARY], CODE[SPACE]
PAD = len(CODE)  # fills the classes' symbol strings to one length; leaves every state as it is


def matcher_of(patterns: Sequence[str]) -> AhoCorasick:
    """The matcher of these patterns of symbols; a run of boundaries, white space or not, is one `BOUNDARY`."""
    matcher = AhoCorasick([[CODE[c] for c in pattern] for pattern in patterns], PAD + 1)
    every = np.arange(len(matcher.next), dtype=np.int32)
    after = matcher.last == SEP
    matcher.next[after, SEP] = every[after]
    matcher.next[:, BLANK] = matcher.next[:, SEP]
    matcher.next[:, PAD] = every
    return matcher


@lru_cache(maxsize=1)
def class_codes() -> NDArray[np.int64]:
    """(longest, C) codes of the symbols that each class of characters stands for, filled up with `PAD`."""
    classes = decoder().classes
    codes = np.full((max(map(len, classes)), len(classes)), PAD, dtype=np.int64)
    for i, text in enumerate(classes):
        codes[: len(text), i] = [CODE[c] for c in text]
    return codes


class SymbolAutomaton(ABC):
    """Numbers the states and makes their rows; an `api.ByteAutomaton` but for `may_end` and `explain`.

    Parameters
    ----------
    size : how many inner states there are at most; begin : the inner one at the start of a text.
    """

    def __init__(self, size: int, begin: int) -> None:
        self._utf8 = decoder()
        self._size = size
        self._ids: dict[int, int] = {}
        self._keys: list[int] = []
        self._lock = threading.Lock()
        self.start = self._number(np.array([begin]))[0]

    @abstractmethod
    def _by_class(self, inner: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inner states after a character of each of these classes, -1 where it is refused.

        `inner` is (K,), `classes` (C,), what is returned (K, C).
        """

    def _parts(self, state: int) -> tuple[int, int]:
        """The UTF-8 state and the inner state that a state stands for."""
        return divmod(self._keys[state], self._size)

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

    def _next_keys(self, pending: NDArray[np.int64], inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 256) keys of the next states, -1 where the byte is refused; the arguments are (K,)."""
        target, klass = self._utf8.target[pending], self._utf8.klass[pending]
        keys = np.empty(klass.shape, dtype=np.int64)
        afters = np.empty(len(inner), dtype=np.int64)
        for part in (np.flatnonzero(pending == 0), np.flatnonzero(pending)):  # the former know far fewer classes
            asked, columns = self._asked(klass[part])
            by_class = self._by_class(inner[part], asked)
            keys[part] = np.take_along_axis(by_class, columns, axis=1)
            afters[part] = by_class[:, 0]  # class 0 is the boundary
        waits = target >= 0
        keys[waits] = (target.astype(np.int64) * self._size + inner[:, None])[waits]
        inside = np.flatnonzero(pending)
        if len(inside):  # where the character begun is broken off, a boundary comes before the byte
            after = afters[inside]
            afresh = self._next_keys(np.zeros_like(inside), np.maximum(after, 0))
            afresh[after < 0] = -1
            keys[inside] = np.where(waits[inside] | (klass[inside] >= 0), keys[inside], afresh)
        return keys

    def _asked(self, klass: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes that stand in `klass`, 0 always the first, and `klass` as places in them."""
        counted = np.zeros(len(self._utf8.classes), dtype=bool)
        counted[0] = True
        counted[klass[klass >= 0]] = True
        place = np.cumsum(counted) - 1
        return np.flatnonzero(counted), place[np.maximum(klass, 0)]

    def rows(self, states: Sequence[int]) -> NDArray[np.int32]:
        """(K, 256) int32: `row` for several states at once, which costs little more than for one."""
        pending, inner = np.array([self._parts(state) for state in states], dtype=np.int64).T
        unique, inverse = np.unique(self._next_keys(pending, inner), return_inverse=True)
        refused = int(unique[0] < 0)
        numbers = np.array([-1] * refused + self._number(unique[refused:]), dtype=np.int32)
        return numbers[inverse].reshape(len(states), 256)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where it is refused."""
        row: NDArray[np.int32] = self.rows([state])[0]
        return row
