"""The grammar over UTF-8 bytes: an `api.ByteAutomaton` whose states are made when they are asked for.

Broken UTF-8 is refused, and so are private use and what lies beyond the basic plane but for emoji (mathematical letters
and digits, tags). A byte that begins a character is allowed where some character that it begins is, so that no text is
led into a dead end inside of one.
"""

# A = automaton states

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason
from r1core_numeric.grammar import Grammar, State
from r1core_numeric.symbols import LETTER, NUMERIC, symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEADS = (*range(0xC2, 0xEE), 0xEF, 0xF0)
_LENGTHS = {lead: 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4 for lead in _LEADS}
_FIRST = {0xE0: 0xA0, 0xF0: 0x9F}  # the least second byte behind these: by the encoding, and for emoji
_LAST = {0xED: 0x9F, 0xF0: 0x9F}
_IDEOGRAPHS = (*range(0xE5, 0xEA), 0xEB, 0xEC)  # all that begins like this are letters, or numerals, which are refused
_ASCII = tuple(symbol(chr(byte)) for byte in range(128))


def _sign(character: str) -> str:
    """The symbol of a character beyond ASCII in an answer; digits of other scripts are not written."""
    found = symbol(character)
    return NUMERIC if found.isdigit() else found


def _following(prefix: bytes) -> range:
    """The bytes that may follow the start of a character."""
    if len(prefix) > 1:
        return range(0x80, 0xC0)
    return range(_FIRST.get(prefix[0], 0x80), _LAST.get(prefix[0], 0xBF) + 1)


@lru_cache(maxsize=4096)
def _symbols(prefix: bytes) -> frozenset[str]:
    """What the characters that begin like this stand for."""
    if len(prefix) == 1 and prefix[0] in _IDEOGRAPHS:
        return frozenset((LETTER,))
    if len(prefix) + 1 == _LENGTHS[prefix[0]]:
        return frozenset(_sign((prefix + bytes([byte])).decode()) for byte in _following(prefix))
    return frozenset().union(*(_symbols(prefix + bytes([byte])) for byte in _following(prefix)))


class ProvenanceAutomaton:
    """Texts in which every number is of the input or a result.

    Parameters
    ----------
    requires : let the text end only once every result stands in it; else the text may be cut back to where it may end.
    """

    start = 0

    def __init__(self, grammar: Grammar, *, requires: bool = False) -> None:
        self.grammar, self.requires, self.trims = grammar, requires, not requires
        self._states: list[tuple[State, bytes]] = [(grammar.start, b"")]
        self._ids: dict[tuple[State, bytes], int] = {self._states[0]: 0}
        self._steps: dict[State, dict[str, State]] = {}
        self._foreign = tuple(one for one in grammar.verbatim if one > "\x7f")

    def row(self, state: int) -> NDArray[np.int32]:
        """The next state for each byte, `(256,)` int32, -1 where it is refused."""
        items, prefix = self._states[state]
        found = np.full(256, -1, dtype=np.int32)
        if not prefix:
            for byte, sign in enumerate(_ASCII):
                found[byte] = self._id(self._step(items, sign, chr(byte)), b"")
            for byte in _LEADS:
                found[byte] = self._started(items, bytes([byte]))
            return found
        for byte in _following(prefix):
            data = prefix + bytes([byte])
            if len(data) < _LENGTHS[prefix[0]]:
                found[byte] = self._started(items, data)
            else:
                found[byte] = self._id(self._step(items, _sign(data.decode()), data.decode()), b"")
        return found

    def may_end(self, state: int) -> bool:
        """Whether the text may end here: not inside a character, nor where its last word makes a number of another."""
        items, prefix = self._states[state]
        due = self.grammar.count if self.requires else 0
        return not prefix and any(self._due(item) >= due and self.grammar.may_end(item) for item in items)

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Why these bytes are refused here (none: why the text may not end); () where they are not."""
        if not data:
            return () if self.may_end(state) else (self._lacking(state),)
        at = state
        for place, byte in enumerate(data):
            following = int(self.row(at)[byte])
            if following < 0:
                written = data[: place + 1].decode("utf-8", "replace")
                return (self._refusal(at, written),)
            at = following
        return ()

    def _due(self, item: object) -> int:
        return int(getattr(item, "due", 0))

    def _pending(self, state: int) -> str:
        """The result that is due, as it is written; "" for none."""
        due = min(self._due(item) for item in self._states[state][0])
        return self.grammar.lexis.results[due][0] if due < self.grammar.count else ""

    def _refusal(self, state: int, written: str) -> Reason:
        pending = self._pending(state)
        due = f"; the result that is due is {pending}" if pending else ""
        text = f"{written!r} here would make a number that is neither in the input nor a result{due}"
        return Reason("numeric/provenance", "every number in an answer is in the input or a program's result", text)

    def _lacking(self, state: int) -> Reason:
        pending = self._pending(state) if self.requires else ""
        text = f"the result {pending} is missing" if pending else "the text would end inside a number or a character"
        return Reason("numeric/result" if pending else "numeric/provenance", "the result of a program is stated", text)

    def _step(self, items: State, sign: str, character: str = "") -> State:
        verbatim = character if character in self.grammar.verbatim else ""
        steps = self._steps.setdefault(items, {})
        key = sign + verbatim
        found = steps.get(key)
        if found is None:
            found = steps[key] = self.grammar.step(items, sign, verbatim)
        return found

    def _started(self, items: State, prefix: bytes) -> int:
        """The state inside a character, where one that begins like this is allowed."""
        alive = any(self._step(items, sign) for sign in _symbols(prefix)) or any(
            self._step(items, _sign(one), one) for one in self._foreign if one.encode().startswith(prefix)
        )
        return self._id(items, prefix) if alive else -1

    def _id(self, items: State, prefix: bytes) -> int:
        if not items:
            return -1
        key = (items, prefix)
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self._states)
            self._states.append(key)
        return found
