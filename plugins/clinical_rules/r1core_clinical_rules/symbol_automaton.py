"""What both automata share: they read bytes as UTF-8 and move on the symbols that each character stands for.

A state is (inner state, UTF-8 prefix pending), its number `number of the inner state * P + prefix`: inner states are
numbered when first met (all that can be would be far too many), and the prefixes of one need no numbers of their own.
Rows are made when asked for. Behind a whole character a row follows from one step for each symbol; only where a
character was begun do the hundreds of things count that a character can stand for.
"""

# A = symbols, C = classes of characters, K = states asked for at once, P = UTF-8 prefixes

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core_clinical_rules.characters import ALPHABET, BOUNDARY, SPACE
from r1core_clinical_rules.utf8 import decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE = {symbol: i for i, symbol in enumerate(ALPHABET)}  # letters and digits first
SEP, BLANK = CODE[BOUNDARY], CODE[SPACE]
_EVERY = np.arange(len(ALPHABET))
_PAD = len(ALPHABET)
_LAST = 2**31 - 1  # rows are int32


@lru_cache(maxsize=1)
def _class_codes() -> NDArray[np.int64]:
    """(longest, C) codes of the symbols that each class of characters stands for, filled up with `_PAD`."""
    classes = decoder().classes
    codes = np.full((max(map(len, classes)), len(classes)), _PAD, dtype=np.int64)
    for i, text in enumerate(classes):
        codes[: len(text), i] = [CODE[c] for c in text]
    return codes


class SymbolAutomaton(ABC):
    """Numbers the states and makes their rows; an `api.ByteAutomaton` but for `may_end` and `explain`.

    Parameters
    ----------
    begin : the inner state at the start of a text.
    """

    def __init__(self, begin: int) -> None:
        self._utf8 = decoder()
        self._prefixes = len(self._utf8.target)
        self._numbered = {-1: -1}  # inner state -> the state between characters; refused stays refused
        self._inner: list[int] = []
        self._lock = threading.Lock()
        self.start = self.state_of(begin)

    @abstractmethod
    def _after(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inner states after one symbol each, -1 where it is refused; the shapes broadcast."""

    def inner_of(self, state: int) -> int:
        """The inner state, behind the last whole character."""
        return self._inner[state // self._prefixes]

    def pending_of(self, state: int) -> int:
        """The UTF-8 state: which prefix of a character was read."""
        return state % self._prefixes

    def state_of(self, inner: int) -> int:
        """The state that is in this inner state and between characters."""
        return int(self._states(np.array([inner]))[0])

    def _states(self, inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """The states between characters of these inner ones (any shape), numbering the new; -1 stays -1.

        Raises
        ------
        OverflowError : for more states than a row can number.
        """
        keys, numbered = inner.ravel().tolist(), self._numbered
        with self._lock:
            for key in keys:
                if key not in numbered:
                    state = len(self._inner) * self._prefixes
                    if state > _LAST - self._prefixes:
                        raise OverflowError(f"{type(self).__name__}: more than {len(self._inner):,} states were met")
                    numbered[key] = state
                    self._inner.append(key)
        return np.array([numbered[key] for key in keys], dtype=np.int64).reshape(inner.shape)

    def rows(self, states: Sequence[int]) -> NDArray[np.int32]:
        """(K, 256) int32: `row` for several states at once, which costs little more than for one."""
        numbers, pending = np.divmod(np.array(states, dtype=np.int64), self._prefixes)
        inner = np.array([self._inner[number] for number in numbers.tolist()], dtype=np.int64)
        between, inside = np.flatnonzero(pending == 0), np.flatnonzero(pending)
        rows = np.empty((len(inner), 256), dtype=np.int32)
        if len(between):
            rows[between] = self._between(inner[between])
        if len(inside):
            rows[inside] = self._inside(inner[inside], pending[inside])
        return rows

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where it is refused."""
        row: NDArray[np.int32] = self.rows([state])[0]
        return row

    def _between(self, inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 256) rows of states between characters; -1 throughout for an inner state of -1."""
        begins, klass = self._utf8.target[0], self._utf8.klass[0]
        by_symbol = self._states(self._step(inner[:, None], _EVERY))
        here = self._states(inner)[:, None]
        return np.where((here < 0) | (begins < 0), by_symbol[:, klass], here + begins)

    def _inside(self, inner: NDArray[np.int64], pending: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 256) rows of states inside a character."""
        goes_on, klass = self._utf8.target[pending], self._utf8.klass[pending]
        asked = np.zeros(len(self._utf8.classes), dtype=bool)
        asked[klass[klass >= 0]] = asked[SEP] = True
        place = np.cumsum(asked) - 1
        unique, which = np.unique(inner, return_inverse=True)
        by_class = self._by_class(unique, np.flatnonzero(asked))
        afresh = self._between(by_class[:, place[SEP]])[which]  # a boundary before the byte that breaks it off
        completed = np.take_along_axis(self._states(by_class)[which], place[klass], axis=1)
        here = self._states(inner)[:, None]
        return np.where(goes_on >= 0, here + goes_on, np.where(klass >= 0, completed, afresh))

    def _by_class(self, inner: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, C) the inner states after a character of each of these classes, -1 where it is refused."""
        found = np.repeat(inner[:, None], len(classes), axis=1)
        for codes in _class_codes()[:, classes]:
            longer = np.flatnonzero(codes != _PAD)
            found[:, longer] = self._step(found[:, longer], codes[longer])
        return found

    def _step(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """`_after`, where what was refused before stays so."""
        return np.where(inner < 0, -1, self._after(np.maximum(inner, 0), codes))
