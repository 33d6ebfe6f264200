"""The layer that carries knowledge across the domain groups of R1.

Each group reads a token into a code of its own; a matrix over groups mixes the codes; each group writes what it
received back, as much as the token belongs to it. So a token of one domain is told what the other domains' readers
found in it, without being routed to their experts. The writing starts at zero: a new layer changes nothing.

N = tokens, H = model width, G = groups, R = width of a group's code.
"""

from __future__ import annotations

import torch
from torch import nn

from r1core.model.r1.config import R1Config


class R1DomainAdaptation(nn.Module):
    """`sum_g p_g U_g sum_h M_gh D_h x`, with p the probabilities that the router gives to the groups."""

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.groups = config.expert_groups
        wide = self.groups * config.adaptation_rank
        self.read = nn.Linear(config.hidden_size, wide, bias=False)
        self.mix = nn.Linear(self.groups, self.groups, bias=False)
        self.write = nn.Linear(wide, config.hidden_size, bias=False)
        self.mix.initial_std, self.write.initial_std = self.groups**-0.5, 0.0  # type: ignore[assignment]

    def forward(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What is added to tokens (N, H) whose router's tempered logits are (N, E): (N, H)."""
        belongs = logits.softmax(-1).unflatten(-1, (self.groups, -1)).sum(-1).to(hidden.dtype)  # (N, G)
        codes = self.read(hidden).unflatten(-1, (self.groups, -1))  # (N, G, R)
        received = self.mix(codes.mT).mT
        added: torch.Tensor = self.write((received * belongs[..., None]).flatten(-2))
        return added
