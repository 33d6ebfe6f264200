"""Kleene's strong three-valued logic (Introduction to Metamathematics, 1952, section 64); None is "unknown"."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Truth = bool | None


def all_of(values: Iterable[Truth]) -> Truth:
    """False where one is false, else unknown where one is unknown, else true."""
    unknown = False
    for value in values:
        if value is False:
            return False
        unknown = unknown or value is None
    return None if unknown else True


def any_of(values: Iterable[Truth]) -> Truth:
    """True where one is true, else unknown where one is unknown, else false."""
    unknown = False
    for value in values:
        if value is True:
            return True
        unknown = unknown or value is None
    return None if unknown else False


def negate(value: Truth) -> Truth:
    """The opposite; unknown stays unknown."""
    return None if value is None else not value


def shown(value: Truth) -> str:
    """`true`, `false` or `unknown`."""
    return "unknown" if value is None else str(value).lower()


def bits(mask: int) -> list[int]:
    """The places of the set bits of a mask, lowest first."""
    if not mask:
        return []
    data = np.frombuffer(mask.to_bytes((mask.bit_length() + 7) // 8, "little"), dtype=np.uint8)
    places: list[int] = np.unpackbits(data, bitorder="little").nonzero()[0].tolist()
    return places
