"""First stage: text and image are brought to one width, each by a norm and a linear map of its own.

D = hidden size of the language model, W = width of the tower's features.
"""

from __future__ import annotations

import torch
from torch import nn

from r1core.recipe.vision import WIDTH


class Projection(nn.Module):
    """Modality-specific maps `(..., D) -> (..., 768)` and `(..., W) -> (..., 768)`."""

    def __init__(self, hidden_size: int, image_width: int, width: int = WIDTH) -> None:
        super().__init__()
        self.text_norm, self.text_map = nn.LayerNorm(hidden_size), nn.Linear(hidden_size, width)
        self.image_norm, self.image_map = nn.LayerNorm(image_width), nn.Linear(image_width, width)

    def text(self, hidden: torch.Tensor) -> torch.Tensor:
        """Project hidden states of the language model."""
        projected: torch.Tensor = self.text_map(self.text_norm(hidden))
        return projected

    def image(self, features: torch.Tensor) -> torch.Tensor:
        """Project features of the tower."""
        projected: torch.Tensor = self.image_map(self.image_norm(features))
        return projected
