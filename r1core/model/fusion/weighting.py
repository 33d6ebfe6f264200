"""Third stage: how much of the text and how much of the image counts, for each token.

C = common width.
"""

from __future__ import annotations

import torch
from torch import nn


class Weighting(nn.Module):
    """`w_t T + w_i A` with `(w_t, w_i) = 2 softmax(f(T, A))` for each token; the plain sum `T + A` at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.judge = nn.Linear(2 * width, 2)
        nn.init.zeros_(self.judge.weight)
        nn.init.zeros_(self.judge.bias)

    def weights(self, text: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The weights of text and image, `(..., 2)`; they are positive and sum to 2."""
        both = torch.cat([self.text_norm(text), self.image_norm(attended)], -1)
        return 2 * torch.softmax(self.judge(both), -1)

    def forward(self, text: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The weighted sum, `(..., C)`, of the projected text and of what it took from the image."""
        of_text, of_image = self.weights(text, attended).split(1, -1)
        return of_text * text + of_image * attended
