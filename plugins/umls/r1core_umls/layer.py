"""What a linked concept adds to the hidden states of the tokens that mention it: a learned vector, or the encoder's.

B = batch, T = tokens, D = model width, S = span slots, W = width of a concept's vector. Imports torch: only the
layer's factory imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from r1core.api import SlotFeatures
from r1core_umls.values import HASHES, KIND


class ConceptEmbedding(nn.Module):
    """Adds a learned vector at every token of a `umls/concept` span.

    A concept's vector is the sum of two rows of a hashed table, so the table's size does not depend on the knowledge
    base (Svenstrup et al., 2017, "Hash Embeddings for Efficient Word Representations", without importance weights).

    Parameters
    ----------
    hidden_size : D.
    width : W.
    buckets : rows of the table.
    seed : of the initial weights.
    """

    def __init__(self, hidden_size: int, *, width: int, buckets: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Embedding(buckets, width, _weight=torch.randn(buckets, width, generator=generator))
        # No bias: a token outside of every span receives exactly zero.
        self.project = nn.Linear(width, hidden_size, bias=False)
        bound = 1 / math.sqrt(width * HASHES)
        with torch.no_grad():
            self.project.weight.uniform_(-bound, bound, generator=generator)

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        """Return what is added to `hidden` (B, T, D): (B, T, D) in its dtype, zero outside `[start, end)` of each span.

        A token's addition depends on the spans that cover it and on nothing else; overlapping spans add up.
        """
        slots = features[KIND]
        buckets = slots.values.masked_fill(~slots.mask.unsqueeze(-1), 0).long()  # (B, S, 2)
        return spread(self.project(self.table(buckets).sum(dim=2)), slots, hidden)


class ConceptProjection(nn.Module):
    """Projects the vector that a `umls/concept` span brings along, the encoder's, into the model.

    Only the projection is learned, so concepts that training never saw are placed by their names.

    Parameters
    ----------
    hidden_size : D.
    width : W.
    seed : of the initial weights.
    """

    def __init__(self, hidden_size: int, *, width: int, seed: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden_size, bias=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():  # for vectors of length 1: as large as a row of independent numbers of variance 1
            self.project.weight.normal_(0.0, 1.0, generator=generator)

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        """As `ConceptEmbedding.forward`."""
        slots = features[KIND]
        vectors = slots.values.masked_fill(~slots.mask.unsqueeze(-1), 0)  # (B, S, W)
        return spread(self.project(vectors.to(self.project.weight.dtype)), slots, hidden)


def spread(vectors: torch.Tensor, slots: SlotFeatures, hidden: torch.Tensor) -> torch.Tensor:
    """Return (B, T, D): at each token the vectors (B, S, D) of the spans that cover it, summed; dtype of `hidden`."""
    position = torch.arange(hidden.shape[1], device=hidden.device).view(1, -1, 1)  # (1, T, 1)
    covered = (position >= slots.start.unsqueeze(1)) & (position < slots.end.unsqueeze(1)) & slots.mask.unsqueeze(1)
    return torch.bmm(covered.to(vectors.dtype), vectors).to(hidden.dtype)  # (B, T, S) x (B, S, D)
