"""What an upcycled model is to be like. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Upcycling:
    """What the new experts are like.

    Parameters
    ----------
    experts, groups, top : of each layer; experts a token goes to.
    width : of a routed expert.
    adaptation_rank : of the layer across groups.
    copies : every expert is a copy of the dense part, and there is no shared one; `width` does not count then.
    seed : of the new weights.
    """

    experts: int = 128
    groups: int = 8
    top: int = 2
    width: int = 64
    adaptation_rank: int = 16
    copies: bool = False
    seed: int = 0
