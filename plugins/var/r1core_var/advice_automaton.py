"""The grammar of `advice_orders.py` as an automaton over bytes, with the risk of the orders so far in its states.

A state is (net trades of the finished lines, how many lines, the line so far), numbered when first met; prose is one
state. An order over the limit is reached, and there nothing goes on and nothing may end: the generation stops at the
very order, with its figures as the reason. In `scale` the text behind a wish is one path, so a model can only write
what was worked out.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from r1core.api import Reason
from r1core_var.advice_config import AdviceConfig
from r1core_var.advice_orders import HOLD, MAX_DIGITS, REASON, Desk, Order, traded_with

FORM = Reason("var/form", "r1core-var: LAYER.md, orders in an answer", "an answer is order lines or HOLD")
UNKNOWN = Reason("var/unknown", "facts.risk", "no limit, or no scenarios, are known, so nothing is advised")
_BEGUN = {
    "stop": re.compile(r"(?P<side>BUY|SELL) (?P<units>[0-9]*)(?P<gap> ?)(?P<id>[A-Z0-9.\-]*)"),
    "scale": re.compile(r"want (?P<side>buy|sell) (?P<units>[0-9]*)(?P<gap> ?)(?P<id>[A-Z0-9.\-]*)(?P<tail>.*)"),
}
_OPENINGS = {"stop": ("BUY ", "SELL "), "scale": ("want buy ", "want sell ")}
_PROSE = frozenset(chr(code) for code in range(0x20, 0x7F) if not chr(code).isdigit())


@dataclass(frozen=True, slots=True)
class _At:
    """Where a text stands: net trades and number of finished lines, the line so far; `prose` inside of the reason."""

    traded: tuple[int, ...]
    lines: int
    line: str
    prose: bool = False


class AdviceAutomaton:
    """Implements `api.ByteAutomaton`; `desk` is None where no limit is known, and then only HOLD can be written."""

    trims = True
    start = 0

    def __init__(self, desk: Desk | None, config: AdviceConfig) -> None:
        self._desk, self._config = desk, config
        self._names = () if desk is None else desk.names
        self._beginnings = {name[:end] for name in self._names for end in range(1, len(name))}
        self._states = [_At((0,) * len(self._names), 0, "")]
        self._numbers = {self._states[0]: 0}
        self._lock = threading.Lock()
        self._tail = lru_cache(maxsize=4096)(self._worked_out)
        self._allowed = lru_cache(maxsize=4096)(self._fits)
        self._reason = lru_cache(maxsize=4096)(self._refusal)  # a dead end asks for every token of a vocabulary

    @property
    def size(self) -> int:
        """How many states were met."""
        return len(self._states)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32, the next state for each byte; -1 where it is refused."""
        following = np.full(256, -1, dtype=np.int32)
        for character, to in self._next(self._states[state]).items():
            following[ord(character)] = self._number(to)
        return following

    def may_end(self, state: int) -> bool:
        """Whether the lines so far are whole and within the limit."""
        at = self._states[state]
        return at.prose or not at.line or at.line == HOLD or (self._finished(at) is not None and not self._open(at))

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Why `data` is refused: an order over the limit with its figures, an unknown limit, or the form."""
        at = self._states[state]
        if not data:
            return () if self.may_end(state) else (self._reason(at),)
        for byte in data:
            following = self._next(at).get(chr(byte)) if byte < 0x80 else None
            if following is None:
                return (self._reason(at),)
            at = following
        return ()

    def _number(self, at: _At) -> int:
        with self._lock:
            number = self._numbers.setdefault(at, len(self._states))
            if number == len(self._states):
                self._states.append(at)
        return number

    def _next(self, at: _At) -> dict[str, _At]:
        """The characters that may follow, and where they lead."""
        if at.prose:
            return dict.fromkeys(_PROSE, at)
        found = {c: _At(at.traded, at.lines, at.line + c) for c in self._within_line(at)}
        if at.line == REASON[:-1]:
            found[REASON[-1]] = _At((), 0, "", prose=True)
        if at.line == HOLD:
            if self._config.rationale:
                found["\n"] = _At(at.traded, self._config.max_orders, "")
        elif self._open(at) and self._finished(at) is None:  # a line break says that the shorter name is meant
            found["\n"] = replace(at, line=at.line + "\n")
        elif made := self._finished(at):
            found["\n"] = _At(traded_with(at.traded, made), at.lines + 1, "")
        return found

    def _within_line(self, at: _At) -> set[str]:
        line, mode = at.line, self._config.mode
        openings = list(_OPENINGS[mode]) if self._names and at.lines < self._config.max_orders else []
        openings += [HOLD] if at.lines == 0 else []
        openings += [REASON[:-1]] if at.lines and self._config.rationale else []
        found = {whole[len(line)] for whole in openings if whole.startswith(line) and whole != line}
        begun = _BEGUN[mode].fullmatch(line)
        if begun is None:
            return found
        units, name = begun["units"], begun["id"]
        if not begun["gap"]:
            digits = "0123456789" if units else "123456789"
            return found | (set(digits) if len(units) < MAX_DIGITS else set()) | ({" "} if units else set())
        if mode == "scale" and begun["tail"]:
            return found | self._along(at, begun["tail"])
        found |= {whole[len(name)] for whole in self._names if whole.startswith(name) and whole != name}
        return found | (self._along(at, "") if mode == "scale" and name in self._names else set())

    def _along(self, at: _At, written: str) -> set[str]:
        """The next character of what was worked out behind a wish."""
        worked_out = self._tail(at.traded, self._wish(at))
        return {worked_out[1][len(written)]} if worked_out and len(written) < len(worked_out[1]) else set()

    def _open(self, at: _At) -> bool:
        """Whether a line of `stop` names an instrument whose name begins another's, so that it may have been cut."""
        begun = _BEGUN["stop"].fullmatch(at.line) if self._config.mode == "stop" else None
        return begun is not None and begun["id"] in self._names and begun["id"] in self._beginnings

    def _wish(self, at: _At) -> Order | None:
        """The order that a line asks for, once it names an instrument."""
        begun = _BEGUN[self._config.mode].fullmatch(at.line.removesuffix("\n"))
        if begun is None or begun["id"] not in self._names:
            return None
        return Order(begun["side"].upper(), int(begun["units"]), self._names.index(begun["id"]))

    def _finished(self, at: _At) -> Order | None:
        """The order that a line comes to, where it is whole and allowed."""
        wish = None if at.line.endswith("\n") else self._wish(at)
        if wish is None:
            return None
        if self._config.mode == "stop":
            return wish if self._allowed(at.traded, wish) else None
        worked_out = self._tail(at.traded, wish)
        begun = _BEGUN["scale"].fullmatch(at.line)
        whole = worked_out is not None and begun is not None and begun["tail"] == worked_out[1]
        return worked_out[0] if whole and worked_out else None

    def _worked_out(self, traded: tuple[int, ...], wish: Order | None) -> tuple[Order, str] | None:
        return None if wish is None or self._desk is None else self._desk.scaled(traded, wish)

    def _fits(self, traded: tuple[int, ...], wish: Order) -> bool:
        return self._desk is not None and self._desk.fits(traded, wish)

    def _refusal(self, at: _At) -> Reason:
        if self._desk is None:
            return UNKNOWN
        wish = None if at.prose else self._wish(at)
        over = wish is not None and self._finished(replace(at, line=at.line.removesuffix("\n"))) is None
        if wish is not None and over and (self._config.mode == "stop" or self._tail(at.traded, wish) is None):
            return Reason("var/limit", self._desk.limit(), self._desk.breach(at.traded, wish))
        return FORM
