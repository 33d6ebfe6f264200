"""Second stage: each text token looks at all patches of its images.

Two ways. `seed_attention` has no weights: `softmax(T I^T / sqrt(C)) I`, the projections being queries, keys and values
at once. `CrossAttention` has queries, keys and values of its own, several heads, and a gate for each head and token.

G = stretches of text, T = tokens of the longest, P = patches of all images of a stretch, C = common width, H = heads.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

SHARP = 1.5
"""Weight of the norm of queries at the start: in a head of 64, scores are within 12 of 0."""


def seed_attention(text: torch.Tensor, image: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    """`softmax(text image^T / sqrt(C)) image`, `(G, T, C)`.

    Parameters
    ----------
    text, image : (G, T, C) and (G, P, C).
    seen : (G, P) bool, the patches that count; None for all.
    """
    scores = text @ image.transpose(-1, -2) / math.sqrt(text.shape[-1])
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
    return torch.softmax(scores, -1) @ image


class CrossAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) of text over image, with gates.

    A head's result is multiplied by `2 sigmoid(g(token))`, 1 at the start: a token that asks nothing of the image can
    close its heads (as the output gate of Qiu et al. 2025, "Gated Attention for Large Language Models", section 2.2).
    Queries and keys are normed in each head (Henry et al. 2020, "Query-Key Normalization for Transformers"; with
    learnt weights, as in Dehghani et al. 2023, section 2): how sharp a look is does not hang on how loud its sides are.

    Raises
    ------
    ValueError : where the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.text_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.query_norm, self.key_norm = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))
        nn.init.constant_(self.query_norm.weight, SHARP)
        self.gate = nn.Linear(width, heads)
        self.mix = nn.Linear(width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, text: torch.Tensor, image: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """What each token takes from the image, `(G, T, C)`; arguments as in `seed_attention`."""
        text, image = self.text_norm(text), self.image_norm(image)
        query, key, value = self.query(text), self.key(image), self.value(image)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        query, key = self.query_norm(query), self.key_norm(key)
        mask = None if seen is None else seen[:, None, None]
        taken = scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)  # (G, T, H, C / H)
        gates = 2 * torch.sigmoid(self.gate(text))
        mixed: torch.Tensor = self.mix((taken * gates[..., None]).flatten(-2))
        return mixed
