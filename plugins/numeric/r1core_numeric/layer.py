"""The extra layers of `plugins.numeric.layer = "numeric/pointer"`: value features, and heads that choose a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from r1core.api import JSON, LayerSpec, SlotFeatures
from r1core_numeric.annotator import KIND, WIDTH
from r1core_numeric.config import POINTER, NumericConfig
from r1core_numeric.learned import ASKED_KIND, ROLE_KIND
from r1core_numeric.programs import program_to_json
from r1core_numeric.selection import OPERATIONS, ROLES, select

if TYPE_CHECKING:
    import torch
    from torch import nn

VALUES = "numeric/values"


def layers(config: NumericConfig) -> Sequence[LayerSpec]:
    """Value features into the embedding, and the heads behind the last block; none where the recipe asks for none."""
    if config.layer != POINTER:
        return []
    return [
        LayerSpec(VALUES, "embedding", _values, kinds=(KIND,)),
        LayerSpec(
            POINTER,
            "head",
            _pointer,
            kinds=(KIND, ROLE_KIND, ASKED_KIND),
            loss=_loss,
            output=partial(_program, least=config.least_probability),
        ),
    ]


def _values(hidden_size: int) -> nn.Module:
    from r1core_numeric.pointer import Values

    return Values(hidden_size, WIDTH, KIND)


def _pointer(hidden_size: int) -> nn.Module:
    from r1core_numeric.pointer import Pointer

    return Pointer(hidden_size, WIDTH, len(ROLES), len(OPERATIONS), KIND, ASKED_KIND)


def _loss(module: nn.Module, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
    """(B,) : cross-entropy of the gold marks."""
    from r1core_numeric.pointer import Pointer, loss

    assert isinstance(module, Pointer)
    return loss(module, hidden, features, role=ROLE_KIND, asked=ASKED_KIND)


def _program(module: nn.Module, hidden: torch.Tensor, features: Mapping[str, SlotFeatures], *, least: float) -> JSON:
    """The program that the heads choose for one row's prompt, as JSON; None where they are less sure than `least`."""
    from r1core_numeric.pointer import Pointer, choose

    assert isinstance(module, Pointer)
    said = choose(module, hidden, features)
    chosen = None if said.operations is None else select(said.operations, said.roles)
    return None if chosen is None or chosen.probability < least else program_to_json(chosen.program())
