"""A constraint that keeps every digit out of the answer, as an automaton over bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from r1core import api

REASON = api.Reason("no-digits", "example: house style, section 1", "a digit")


class NoDigits:
    """One state; every byte but 0x30 to 0x39 leads back to it."""

    start = 0

    def row(self, state: int) -> NDArray[np.int32]:
        """Next state for each byte, -1 where it is refused."""
        following = np.zeros(256, np.int32)
        following[ord("0") : ord("9") + 1] = -1
        return following

    def may_end(self, state: int) -> bool:
        """The answer may end anywhere."""
        return True

    def explain(self, state: int, data: bytes) -> tuple[api.Reason, ...]:
        """The rule, where `data` holds a digit."""
        return (REASON,) if any(byte in b"0123456789" for byte in data) else ()


class DigitFree:
    """Applies to every request; return None from `start` where a constraint has nothing to say."""

    name = "decode_constraint/digit-free"

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """Lift the automaton to this model's tokens."""
        return request.lift(AUTOMATON)

    def fingerprint(self) -> str:
        """Raise the number when the rule changes."""
        return "1"


AUTOMATON = NoDigits()  # one object, so that its masks are cached across requests


@api.hookimpl
def decode_constraint(ctx: api.Context) -> Sequence[api.DecodeConstraint]:
    """The one constraint."""
    return [DigitFree()]
