"""A small bottleneck after the last decoder block; it reads no spans, and tells constraints how much it had to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1core import api

if TYPE_CHECKING:
    import torch
    from torch import nn

WIDTH = 8


def bottleneck(hidden_size: int) -> nn.Module:
    """Make the module; torch is imported here, not when the plugin is listed."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        """B = rows, T = tokens, D = hidden size. What it gives is added through the core's gate."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(hidden_size, WIDTH), nn.Linear(WIDTH, hidden_size)

        def forward(self, hidden: torch.Tensor, features: object) -> torch.Tensor:
            """(B, T, D) to (B, T, D), each token by itself."""
            result: torch.Tensor = self.up(torch.tanh(self.down(hidden)))
            return result

    return Bottleneck()


def size(module: nn.Module, hidden: torch.Tensor, features: Mapping[str, api.SlotFeatures]) -> float:
    """Mean size of what the layer adds over one row's prompt, `hidden` (1, T, D); `decode_constraint.py` reads it."""
    return float(module(hidden, features).abs().mean())


@api.hookimpl
def extra_layer(ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
    """One layer; `model` is the base model's Hugging Face config."""
    return [api.LayerSpec("extra_layer/bottleneck", "block:-1", bottleneck, output=size)]
