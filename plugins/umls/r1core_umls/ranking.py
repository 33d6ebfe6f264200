"""Weighs the evidence: a small network gives each concept of a mention a score, and those scores a probability.

Two layers, GELU between them; applied by numpy, trained by torch with the cross-entropy of the right concept among
those found (a listwise loss: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach").
"""

# Q = mentions, M = concepts of each, X = columns of evidence, H = hidden units

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import NAMED, Evidence

HIDDEN, STEPS, RATE, DECAY = 32, 300, 5e-3, 1e-3
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Ranker:
    """mean, deviation : of the columns (X,). first : (X + 1, H), the last row a bias. second : (H,)."""

    mean: Array
    deviation: Array
    first: Array
    second: Array

    def probabilities(self, evidence: Evidence) -> Array:
        """Return the probability of each concept, (Q, M); 0 where there is none. A row sums to 1."""
        hidden = ((evidence.columns - self.mean) / self.deviation) @ self.first[:-1] + self.first[-1]
        # The tanh form of GELU (Hendrycks & Gimpel 2016, section 2), as in training.
        hidden = 0.5 * hidden * (1 + np.tanh(0.7978845608 * (hidden + 0.044715 * hidden**3)))
        scores = np.where(evidence.concepts >= 0, hidden @ self.second, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        return scores / scores.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Fitted:
    """What training gives."""

    encoder: Encoder
    ranker: Ranker


def train_ranker(evidence: Evidence, answers: Sequence[int], seed: int = 0) -> Ranker:
    """Train on mentions whose concept is known; those whose concept was not found at all teach nothing.

    Raises
    ------
    ValueError : the right concept is found for none of them.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    right = evidence.concepts == np.asarray(answers)[:, None]
    found = right.any(-1)
    if not found.any():
        raise ValueError("the right concept is among those found for no mention; nothing can be learnt")
    torch.manual_seed(seed)
    there = torch.from_numpy(evidence.concepts[found] >= 0)
    columns, wanted = torch.from_numpy(evidence.columns[found]), torch.from_numpy(right[found].argmax(-1))
    mean, deviation = columns[there].mean(0), columns[there].std(0) + 1e-6
    columns = (columns - mean) / deviation
    inner, outer = nn.Linear(len(NAMED), HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
    net = nn.Sequential(inner, nn.GELU("tanh"), outer)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        scores = net(columns)[..., 0].masked_fill(~there, -torch.inf)
        loss = functional.cross_entropy(scores, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first = torch.cat([inner.weight.detach().t(), inner.bias.detach()[None]])
    second = outer.weight.detach()[0]
    return Ranker(*(part.numpy().astype(np.float32) for part in (mean, deviation, first, second)))
