"""Processes that work on one run together, as what they share sees them (`r1core.train.launched` is a launcher's)."""

from __future__ import annotations

from typing import Any, Protocol

from r1core.api import JSON


class Party(Protocol):
    """Processes that meet."""

    rank: int
    world: int

    def exchange(self, value: Any) -> list[Any]:
        """Every process's value, in order of ranks; each of them has to ask."""
        ...


class Crew(Party, Protocol):
    """A party whose first process leads."""

    def say(self, message: JSON) -> None:
        """As the first process: tell the others, without waiting for them."""
        ...

    def leave(self) -> None:
        """Part, so that what comes after stands alone."""
        ...


class Alone:
    """A party of one."""

    rank, world = 0, 1

    def exchange(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]


ALONE = Alone()
