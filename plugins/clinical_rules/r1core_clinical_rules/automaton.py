"""Forbidden names as a byte automaton over normalised text.

The inner state is (the longest end of the letters so far that begins a name, the gaps between these letters, the gap
behind the last one), as the bits of one number. A gap is 0 for none, 1 for a boundary, 3 for one with white space. A
state holds those before the last `LONG` - 1 letters at most: beyond that the boundaries in a name do not matter. Of the
first letter's it holds no more than whether there is one. Nearly all states differ in what they refuse later on.
"""

# K = automaton states asked for at once, N = Aho-Corasick states

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import ALPHABET, BOUNDARY, LONG, SHORT, SPACE, SYMBOLS, is_name, normalise, tail
from r1core_clinical_rules.symbol_automaton import BLANK, CODE, SEP, SymbolAutomaton

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASCII_ONLY = Reason("ascii-only", "clinical_rules: ascii_only", "a character outside ASCII")
_GAP = {0: "", 1: BOUNDARY, 3: SPACE}  # by the two bits of a gap, which add up by "or"
_GAPS = 2 * LONG  # bits: the lowest two the gap behind the last letter, then those before each letter, backwards
_ALL = (1 << _GAPS) - 1


class ForbiddenNames(SymbolAutomaton):
    """Refuses the byte that would complete a forbidden name; implements `api.ByteAutomaton`.

    Parameters
    ----------
    names : name as listed -> the reasons why it is forbidden. Where its letters are the name, `is_name` says.
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
        self._names, self._reasons = tuple(reasons), [tuple(why) for why in reasons.values()]
        self._matcher = AhoCorasick([[CODE[c] for c in name] for name in reasons], len(SYMBOLS))
        # (N,) the lengths of the names that end in a state, as bits; bit 0 stands for all of `LONG` and more
        ends = [sum({1 << self._bit(i) for i in out}) for out in self._matcher.outputs]
        self._ends = np.array(ends, dtype=np.int32)
        depth = _depth_in_short(self._matcher, reasons)
        self._kept = (1 << np.maximum(2 * depth - 1, 0)) - 1  # (N,) the bits of gaps before letters that can matter
        self._gap = np.zeros((len(depth), len(ALPHABET)), dtype=np.int64)  # what each symbol makes of the gap behind
        self._gap[:, SEP], self._gap[:, BLANK] = 1, np.where(depth > 0, 3, 1)
        self._next = np.repeat(np.arange(len(depth))[:, None], len(ALPHABET), axis=1)
        self._next[:, : len(SYMBOLS)] = self._matcher.next
        self._anywhere, self._as_words = _verdicts()
        self._reach = max([SHORT, *map(len, reasons)])
        self._ascii_only = ascii_only
        super().__init__(begin=1)  # the text begins at a boundary

    def _bit(self, index: int) -> int:
        length = len(self._names[index])
        return length if length < LONG else 0

    def after(self, text: str) -> int:
        """The state of a new text behind `text`, which may hold names itself: one begun in it may not be completed.

        The two count as separated by a boundary without white space: the stricter kind.
        """
        inner = np.array([1])
        for symbol in tail(text, self._reach) + BOUNDARY:
            inner = self._moved(inner, np.array([CODE[symbol]]))[0]
        return self.state_of(int(inner[0]))

    def rows(self, states: Sequence[int]) -> NDArray[np.int32]:
        """(K, 256) int32: the next states, -1 where the byte is refused."""
        rows = super().rows(states)
        if self._ascii_only:
            rows[:, 0x80:] = -1
        return rows

    def _after(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        moved, completed = self._moved(inner, codes)
        return np.where(completed != 0, -1, moved)

    def _moved(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The inner states after one symbol each, and the lengths (bits) of names that it completes; both broadcast.

        A letter completes those that stand inside of a text, a boundary behind a letter those that are whole words.
        """
        node = inner >> _GAPS
        after = self._next[node, codes]
        is_letter = codes < SEP
        before = inner & self._kept[after]  # where a letter comes, the gap behind the last one lies before it
        moved = after << _GAPS | np.where(is_letter, before << 2, inner & _ALL | self._gap[node, codes])
        verdict = np.where(is_letter, self._anywhere[before], self._as_words[inner & _ALL])
        return moved, self._ends[after] & verdict

    def may_end(self, state: int) -> bool:
        """Whether the end of the text, being a boundary, completes no name."""
        return not self._moved(np.array([self.inner_of(state)]), np.array([SEP]))[1][0]

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """The rules whose name `data` would complete in `state` (b"": ending would); () when none."""
        if not data:
            return self._completed(state, BOUNDARY)
        for byte in data:
            following = int(self.row(state)[byte])
            if following < 0 and self._ascii_only and byte >= 0x80:
                return (ASCII_ONLY,)
            if following < 0:
                return self._completed(state, self._emitted(self.pending_of(state), byte))
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
        inner = np.array([self.inner_of(state)])
        found: dict[Reason, None] = {}
        for symbol in symbols:
            inner, lengths = self._moved(inner, np.array([CODE[symbol]]))
            for index in self._matcher.outputs[int(inner[0]) >> _GAPS]:
                if lengths[0] >> self._bit(index) & 1:
                    found.update(dict.fromkeys(self._reasons[index]))
        return tuple(found)


def _depth_in_short(matcher: AhoCorasick, names: Sequence[str] | Mapping[str, object]) -> NDArray[np.int32]:
    """(N,) how many letters of a state can begin, or be, a name that is not long: the others' gaps do not matter."""
    depth = np.zeros(len(matcher.next), dtype=np.int32)
    for name in names:
        if len(name) < LONG:
            node = 0
            for at, symbol in enumerate(name, 1):
                node = matcher.children[node][CODE[symbol]]
                depth[node] = at
    for node in matcher.order:
        depth[node] = depth[node] or depth[matcher.fallback[node]]
    return depth


@lru_cache(maxsize=1)
def _verdicts() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(2 ** _GAPS,) the lengths of names, as bits, that letters with these gaps can be: inside of a text; at its end.

    The former is asked with the gap before the newest letter lowest, the latter with the gap behind it, which has to be
    none: there the boundary was seen before.
    """
    inside, whole = np.ones(1 << _GAPS, dtype=np.int32), np.zeros(1 << _GAPS, dtype=np.int32)
    for digits in itertools.product(_GAP, repeat=LONG - 1):
        number = sum(digit << 2 * place for place, digit in enumerate(digits))
        for length in range(1, LONG):
            gaps, starts = [_GAP[digit] for digit in digits[: length - 1]], digits[length - 1] > 0
            if is_name(gaps, starts=starts, ends=False):
                inside[number] |= 1 << length
            elif is_name(gaps, starts=starts, ends=True):
                whole[number << 2] |= 1 << length
    return inside, whole
