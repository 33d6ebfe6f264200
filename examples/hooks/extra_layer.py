"""A small bottleneck after the last decoder block that reads doses; it tells constraints how much it had to say.

The spans come from `preprocess.py`, which has to take part as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1core import api

if TYPE_CHECKING:
    import torch
    from torch import nn

WIDTH = 8
DOSE = "preprocess/dose"


def bottleneck(hidden_size: int) -> nn.Module:
    """Make the module; torch is imported here, not when the plugin is listed."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        """B = rows, T = tokens, D = hidden size. What it gives is added through the core's gate."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(hidden_size, WIDTH), nn.Linear(WIDTH, hidden_size)
            self.dose = nn.Linear(1, WIDTH)

        def forward(self, hidden: torch.Tensor, features: Mapping[str, api.SlotFeatures]) -> torch.Tensor:
            """(B, T, D) to (B, T, D), each token by itself and the doses that stand on it."""
            slots = features[DOSE]  # start, end, mask (B, S); values (B, S, 1); S = slots, the last ones padding
            at = torch.arange(hidden.shape[1], device=hidden.device)
            inside = (slots.start[..., None] <= at) & (at < slots.end[..., None]) & slots.mask[..., None]  # (B, S, T)
            doses = torch.where(slots.mask[..., None], slots.values, 0.0)  # whatever padding holds
            told = torch.einsum("bst,bsw->btw", inside.float(), self.dose(torch.asinh(doses)))
            result: torch.Tensor = self.up(torch.tanh(self.down(hidden) + told))
            return result

    return Bottleneck()


def size(module: nn.Module, hidden: torch.Tensor, features: Mapping[str, api.SlotFeatures]) -> float:
    """Mean size of what the layer adds over one row's prompt, `hidden` (1, T, D); `decode_constraint.py` reads it."""
    return float(module(hidden, features).abs().mean())


@api.hookimpl
def extra_layer(ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
    """One layer; `model` is the base model's Hugging Face config."""
    return [api.LayerSpec("extra_layer/bottleneck", "block:-1", bottleneck, kinds=(DOSE,), output=size)]
