"""A constraint that keeps digits out of the answer, and more where a layer says so, as automata over bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from r1core import api

LOUD = 0.5
"""Mean size of what the layer of `extra_layer.py` adds to a prompt, from which an answer may not exclaim either."""


class Without:
    """One state; every byte but the refused ones leads back to it."""

    start = 0

    def __init__(self, refused: bytes, reason: api.Reason) -> None:
        self.refused, self.reason = refused, reason

    def row(self, state: int) -> NDArray[np.int32]:
        """Next state for each byte, -1 where it is refused."""
        following = np.zeros(256, np.int32)
        following[list(self.refused)] = -1
        return following

    def may_end(self, state: int) -> bool:
        """The answer may end anywhere."""
        return True

    def explain(self, state: int, data: bytes) -> tuple[api.Reason, ...]:
        """The rule, where `data` holds a refused byte."""
        return (self.reason,) if any(byte in self.refused for byte in data) else ()


# one object each, so that their masks are cached across requests
PLAIN = Without(b"0123456789", api.Reason("no-digits", "example: house style, section 1", "a digit"))
CALM = Without(b"0123456789!", api.Reason("calm", "example: house style, section 2", "a digit or an exclamation mark"))


class DigitFree:
    """Applies to every request; return None from `start` where a constraint has nothing to say."""

    name = "decode_constraint/digit-free"

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """Lift an automaton to this model's tokens: the stricter one, unless the layer is there and says otherwise."""
        said = request.outputs.get("extra_layer/bottleneck")
        return request.lift(PLAIN if said is not None and said < LOUD else CALM)

    def fingerprint(self) -> str:
        """Raise the number when the rule changes."""
        return "2"


@api.hookimpl
def decode_constraint(ctx: api.Context) -> Sequence[api.DecodeConstraint]:
    """The one constraint."""
    return [DigitFree()]
