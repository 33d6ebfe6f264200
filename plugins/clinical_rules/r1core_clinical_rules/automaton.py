"""Forbidden names as a byte automaton over normalised text.

The inner state is (the longest end of the letters so far that begins a name, the gaps between these letters, the gap
behind the last one). A gap is 0 for none, 1 for a boundary, 2 for one with white space; a state holds those before the
last `LONG` - 1 letters at most, as the base-4 digits of a number, the one before the last letter lowest: beyond that
the boundaries in a name do not matter.
"""

# C = classes of characters, N = Aho-Corasick states, K = automaton states asked for at once

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_clinical_rules.aho_corasick import AhoCorasick
from r1core_clinical_rules.characters import BOUNDARY, LONG, SHORT, SPACE, SYMBOLS, is_name, normalise, tail
from r1core_clinical_rules.symbol_automaton import CODE, PAD, SEP, SymbolAutomaton, class_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASCII_ONLY = Reason("ascii-only", "clinical_rules: ascii_only", "a character outside ASCII")
GAPS = 4 ** (LONG - 1)  # numbers of as many digits
_GAP = ("", BOUNDARY, SPACE)  # by digit


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
        kept = np.minimum(_depth_in_short(self._matcher, reasons), LONG - 1).astype(np.int32)
        self._kept = (1 << 2 * kept) - 1  # (N,) the digits that can still matter
        self._first = (2 << 2 * kept) >> 2  # (N,) the one before the first letter: whether there is a gap is all
        self._inside, self._whole = _verdicts()
        self._reach = max([SHORT, *map(len, reasons)])
        self._ascii_only = ascii_only
        super().__init__(len(self._matcher.next) * GAPS * len(_GAP), begin=1)  # the text begins at a boundary

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
        return self._number(inner)[0]

    def _next_keys(self, pending: NDArray[np.int64], inner: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 256) keys of the next states, -1 where the byte is refused."""
        keys = super()._next_keys(pending, inner)
        if self._ascii_only:
            keys[:, 0x80:] = -1
        return keys

    def _by_class(self, inner: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        codes = class_codes()[:, classes]
        found, completed = self._moved(inner[:, None], codes[0])
        found[completed] = -1
        for row in codes[1:]:
            longer = np.flatnonzero(row != PAD)
            if len(longer):
                before = found[:, longer]
                moved, completed = self._moved(np.maximum(before, 0), row[longer])
                found[:, longer] = np.where((before < 0) | completed, -1, moved)
        empty = codes[0] == PAD
        found[:, empty] = inner[:, None]
        return found

    def _moved(self, inner: NDArray[np.int64], codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The inner states after one symbol each, and whether a name is completed by it; the shapes broadcast."""
        rest, behind = np.divmod(inner, len(_GAP))
        node, gaps = rest // GAPS, rest % GAPS
        after = self._matcher.next[node, np.minimum(codes, SEP - 1)]
        kept = (gaps << 2 | behind) & self._kept[after]
        kept -= (kept & self._first[after]) >> 1
        letter = (after * np.int64(GAPS) + kept) * len(_GAP)
        wider = np.where(self._kept[node] > 0, np.maximum(behind, codes - SEP + 1), 1)
        is_letter = codes < SEP
        by_letter = (self._ends[after] & self._inside[kept]) != 0
        by_end = (behind == 0) & ((self._ends[node] & self._whole[gaps]) != 0)
        return np.where(is_letter, letter, rest * len(_GAP) + wider), np.where(is_letter, by_letter, by_end)

    def may_end(self, state: int) -> bool:
        """Whether the end of the text, being a boundary, completes no name."""
        return not self._moved(np.array([self._parts(state)[1]]), np.array([SEP]))[1][0]

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
        inner = np.array([self._parts(state)[1]])
        found: dict[Reason, None] = {}
        for symbol in symbols:
            is_letter = symbol in SYMBOLS
            moved, completed = self._moved(inner, np.array([CODE[symbol]]))
            node, gaps = divmod(int((moved if is_letter else inner)[0]) // len(_GAP), GAPS)
            lengths = int((self._inside if is_letter else self._whole)[gaps]) if completed[0] else 0
            for index in self._matcher.outputs[node]:
                if lengths >> self._bit(index) & 1:
                    found.update(dict.fromkeys(self._reasons[index]))
            inner = moved
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
    """(GAPS,) the lengths of names, as bits, that letters with these gaps can be: inside of a text; at its end only."""
    inside, whole = np.ones(GAPS, dtype=np.int32), np.zeros(GAPS, dtype=np.int32)
    for digits in itertools.product(range(len(_GAP)), repeat=LONG - 1):
        number = sum(digit << 2 * place for place, digit in enumerate(digits))
        for length in range(1, LONG):
            gaps, starts = [_GAP[digit] for digit in digits[: length - 1]], digits[length - 1] > 0
            if is_name(gaps, starts=starts, ends=False):
                inside[number] |= 1 << length
            elif is_name(gaps, starts=starts, ends=True):
                whole[number] |= 1 << length
    return inside, whole
