"""Processes that work on one run together, as what they share sees them: one alone, or a launcher's."""

from __future__ import annotations

from typing import Any, Protocol

from r1core.api import JSON


class Crew(Protocol):
    """Processes that meet; the first one leads (`r1core.train.launched` is a launcher's crew)."""

    rank: int
    world: int

    def exchange(self, value: Any) -> list[Any]:
        """Every process's value, in order of ranks; each of them has to ask."""
        ...

    def say(self, message: JSON) -> None:
        """As the first process: tell the others, without waiting for them."""
        ...

    def leave(self) -> None:
        """Part, so that what comes after stands alone."""
        ...


class Alone:
    """A crew of one."""

    rank, world = 0, 1

    def exchange(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]

    def say(self, message: JSON) -> None:
        """Nobody is there to hear it."""

    def leave(self) -> None:
        """Nothing to part from."""


ALONE = Alone()
