"""The router's temperature tau over a training: one value, or from one to another. Torch-free.

A high tau spreads tokens and gradients over many experts early; a low one lets experts specialise later. Tau is kept in
millionths, whole numbers, so that no cast of a model rounds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SHAPES = ("cosine", "linear")
LEAST, MOST = 0.001, 1000.0
"""Taus that are taken: beyond them the softmax is a maximum, or even, to every digit."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Temperature:
    """Tau by the share of a training's steps that have been taken.

    Parameters
    ----------
    start, end : tau before the first step, and from `share` of the steps on.
    shape : `cosine` (half a period, flat at both ends) or `linear`.
    share : of the steps in which tau moves, above 0 and up to 1.

    Raises
    ------
    ValueError : naming the key, what was found and what would fit.
    """

    start: float
    end: float
    shape: str = "cosine"
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            refuse_tau(f"router_temperature.{name}", getattr(self, name))
        if self.shape not in SHAPES:
            raise ValueError(f"router_temperature.shape = {self.shape!r}: give {' or '.join(SHAPES)}")
        if not _number(self.share) or not 0 < self.share <= 1:
            raise ValueError(f"router_temperature.share = {self.share!r}: give a share, above 0 and up to 1")

    def at(self, progress: float) -> float:
        """Tau when this share of all steps has been taken, 0 to 1."""
        way = min(1.0, progress / self.share)
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.start + (self.end - self.start) * way


def temperature_of(value: float | Mapping[str, Any]) -> Temperature | float:
    """What `router_temperature` says: a tau, or how it moves.

    Raises
    ------
    ValueError : for anything else.
    """
    if not isinstance(value, Mapping):
        refuse_tau("router_temperature", value)
        return float(value)
    known = [field.name for field in fields(Temperature)]
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"router_temperature.{unknown[0]}: there is no such key; give {', '.join(known)}")
    if missing := [name for name in ("start", "end") if name not in value]:
        raise ValueError(f"router_temperature.{missing[0]} is missing: a schedule goes from start to end")
    return Temperature(**value)


def first_tau(value: float | Mapping[str, Any]) -> float:
    """Tau of a model that has not been trained."""
    found = temperature_of(value)
    return found.start if isinstance(found, Temperature) else found


def refuse_tau(name: str, value: object) -> None:
    """Refuse what is no temperature.

    Raises
    ------
    ValueError : with the name.
    """
    if not _number(value):
        raise ValueError(f"{name} = {value!r}: give a number, or a table with start and end")
    if not value > 0:  # type: ignore[operator]  # a number
        raise ValueError(f"{name} = {value}: it has to be above 0")
    if not LEAST <= value <= MOST:  # type: ignore[operator]
        raise ValueError(f"{name} = {value}: give {LEAST} to {MOST:g}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
