"""Rotary positions, turned in place piece by piece where nothing has to be kept for a gradient.

The library's way holds four tensors of the size of all queries at its height; over 200,000 tokens that is more than the
rest of an attention layer needs. A piece at a time gives the same numbers, bit for bit.

B = batch, T = tokens, D = head width.
"""

from __future__ import annotations

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

PIECE = 8192
"""Tokens that are turned at once."""


def turned(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (B, heads, T, D) and keys (B, groups, T, D), turned by (B, T, D); without gradients they are used up."""
    tokens = query.shape[2]
    if tokens <= PIECE or query.requires_grad or key.requires_grad:
        return apply_rotary_pos_emb(query, key, cos, sin)
    for start in range(0, tokens, PIECE):
        at = slice(start, start + PIECE)
        query[:, :, at], key[:, :, at] = apply_rotary_pos_emb(query[:, :, at], key[:, :, at], cos[:, at], sin[:, at])
    return query, key
