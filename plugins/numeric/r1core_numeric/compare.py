"""Numbers of one prompt weighed against each other: which of two rows is meant shows only when both have been read.

Attention between the numbers of a prompt and the end of its question, whose scores also know which numbers share a row
or a column of the table. It sees numbers behind as well as before, so it serves what is said of a prompt as a whole,
never what is added to a hidden state.

B = rows of a pass, N = slots (numbers, then ends of questions), I = inner width, H = heads.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEADS, DEPTH = 4, 2


class Comparison(nn.Module):
    """`DEPTH` blocks of attention and feed-forward, each added to what it reads (pre-norm)."""

    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, relations) for _ in range(DEPTH))

    def forward(self, states: torch.Tensor, together: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
        """(B, N, I) to (B, N, I).

        Parameters
        ----------
        together : (B, N, N) bool, which slots are of one prompt; every slot sees itself.
        related : (B, N, N, K) bool, in which ways two slots are related.
        """
        for block in self.blocks:
            states = block(states, together, related)
        return states


class _Block(nn.Module):
    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.told = nn.Linear(width, width)
        self.bias = nn.Linear(relations, HEADS, bias=False)
        self.further = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: torch.Tensor, together: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
        query, key, value = self.read(self.before(states)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = self.bias(related.to(states.dtype)).permute(0, 3, 1, 2)  # (B, H, N, N)
        scores = scores.masked_fill(~together[:, None], torch.finfo(states.dtype).min)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=scores)
        states = states + self.told(found.transpose(1, 2).flatten(2))
        further: torch.Tensor = states + self.further(self.between(states))
        return further
