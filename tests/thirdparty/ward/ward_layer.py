"""The layer's module: imports torch, so only the factory imports it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from r1core.api import SlotFeatures


class Complaint(nn.Module):
    """Adds one learned vector at the tokens of every complaint."""

    def __init__(self, hidden_size: int, seed: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(hidden_size, generator=torch.Generator().manual_seed(seed)))

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        slots = features["ward/complaint"]
        added = torch.zeros_like(hidden)
        for row in range(hidden.shape[0]):
            for slot in range(slots.start.shape[1]):
                if slots.mask[row, slot]:
                    added[row, slots.start[row, slot] : slots.end[row, slot]] += self.vector.to(hidden.dtype)
        return added
