"""The layer that carries knowledge across the domain groups of R1.

Each group reads a token into a code of its own; a matrix over groups mixes the codes; each group writes what it
received back, as much as the token belongs to it. So a token of one domain is told what the other domains' readers
found in it, without being routed to their experts. The writing starts at zero: a new layer changes nothing.

H = model width, E = experts, G = groups, R = width of a group's code.
"""

from __future__ import annotations

import torch
from torch import nn

from r1core.model.r1.config import R1Config


class R1Mixing(nn.Module):
    """`sum_h M_gh c_h`: each group's sum of all groups' codes, (..., G, R)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, groups))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(..., G, R) -> (..., G, R)."""
        return self.weight.to(codes.dtype) @ codes


class R1DomainAdaptation(nn.Module):
    """`sum_g p_g U_g sum_h M_gh D_h x`, with p the probabilities that the router gives to the groups."""

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.groups = config.expert_groups
        wide = self.groups * config.adaptation_rank
        self.read = nn.Linear(config.hidden_size, wide, bias=False)
        self.mix = R1Mixing(self.groups)
        self.write = nn.Linear(wide, config.hidden_size, bias=False)
        self.write.initial_std = 0.0  # type: ignore[assignment]

    def forward(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What is added to tokens (..., H) whose router's tempered logits are (..., E): (..., H)."""
        belongs = logits.softmax(-1).unflatten(-1, (self.groups, -1)).sum(-1).to(hidden.dtype)  # (..., G)
        codes = self.read(hidden).unflatten(-1, (self.groups, -1))  # (..., G, R)
        added: torch.Tensor = self.write((self.mix(codes) * belongs[..., None]).flatten(-2))
        return added
