"""The layer behind `layer = true`: risk figures of an instrument, added to the tokens that name it."""

# B = rows, T = tokens, S = slots, V = figures, D = hidden size

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from r1core.api import SlotFeatures
from r1core_var.advice_spans import KIND, WIDTH


class RiskEmbedding(nn.Module):
    """A linear map of the figures onto the span's tokens; the core's gate makes it nothing at step 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.figures = nn.Linear(WIDTH, hidden_size)

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        """What is added, (B, T, D): each span's figures on each of its tokens, nothing elsewhere."""
        slots = features[KIND]
        at = torch.arange(hidden.shape[1], device=hidden.device)
        inside = (slots.start[..., None] <= at) & (at < slots.end[..., None]) & slots.mask[..., None]  # (B, S, T)
        values = torch.where(slots.mask[..., None], slots.values, 0.0)  # whatever padding holds
        return torch.einsum("bst,bsd->btd", inside.float(), self.figures(values))
