"""The router of R1: which experts each token goes to, and how its weight is shared among them.

A token's logit for an expert is the expert's own plus its group's, so that a group is learned as a whole. The softmax
over logits / tau gives the probabilities (and the losses see these tempered logits). Chosen are the best experts of
the best groups by logit plus a selection bias that training moves against the load (L. Wang et al., arXiv:2408.15664);
the bias decides who is chosen and never how much a chosen expert weighs.

N = tokens, H = model width, E = experts, G = groups, K = experts of a token. Not covered: dropping tokens at a
capacity; every token reaches its K experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import distributed, nn
from torch.nn import functional

from r1core.model.r1.config import R1Config
from r1core.model.r1.temperature import MILLION, first_tau

FURTHEST = 3.0
"""Of an expert's load above the mean, in means, what a step of its bias counts at most."""


class Routing(NamedTuple):
    """Where each token goes.

    Parameters
    ----------
    logits : (N, E) fp32, over tau; -inf for experts that are switched off.
    experts : (N, K) indices, the best first.
    weights : (N, K) in the tokens' dtype, of each chosen expert's output.
    """

    logits: torch.Tensor
    experts: torch.Tensor
    weights: torch.Tensor


class R1Router(nn.Module):
    """Chooses K of E experts for each token, group by group.

    `bias_steps` (E,) int32 is the selection bias and `tau` () int32 the temperature, in millionths.
    """

    takes_any_dtype = True  # routes in that of its weights
    bias_steps: torch.Tensor
    tau: torch.Tensor
    load: torch.Tensor
    active: torch.Tensor

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.groups, self.top, self.top_groups = (
            config.expert_groups,
            config.num_experts_per_tok,
            config.groups_per_token,
        )
        self.normalised = config.norm_topk_prob
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.group_weight = nn.Parameter(torch.zeros(config.expert_groups, config.hidden_size))
        self.bias_rate = config.router_bias_rate
        self.register_buffer("bias_steps", torch.zeros(config.num_experts, dtype=torch.int32))  # no cast rounds it
        millionths = round(first_tau(config.router_temperature) * MILLION)
        self.register_buffer("tau", torch.tensor(millionths, dtype=torch.int32))  # nor this
        self.register_buffer("load", torch.zeros(config.num_experts, dtype=torch.int64), persistent=False)
        self.register_buffer("active", torch.ones(config.num_experts, dtype=torch.bool), persistent=False)

    def forward(self, hidden: torch.Tensor, valid: torch.Tensor | None = None) -> Routing:
        """Route tokens, (N, H); those where `valid` (N,) is False are not counted in the load."""
        given = hidden.to(self.weight.dtype)
        own = functional.linear(given, self.weight).float()
        group = functional.linear(given, self.group_weight).float()
        tau = self.tau.to(torch.float32) / MILLION
        logits = (own.unflatten(-1, (self.groups, -1)) + group[..., None]).flatten(-2) / tau
        logits = logits.masked_fill(~self.active, -torch.inf)
        experts = self._chosen(logits.detach(), tau)
        weights = logits.softmax(-1).gather(-1, experts)
        if self.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        if self.training:
            self._count(experts, valid)
        return Routing(logits, experts, weights.to(hidden.dtype))

    def _chosen(self, logits: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """The K best experts by logit and bias, (N, K), of the best groups."""
        scores = logits + self.bias_steps / (MILLION * tau)
        if self.top_groups < self.groups:
            by_group = scores.unflatten(-1, (self.groups, -1))
            best = by_group.amax(-1).topk(self.top_groups, dim=-1).indices
            kept = torch.zeros_like(by_group[..., 0], dtype=torch.bool).scatter_(-1, best, True)
            scores = by_group.masked_fill(~kept[..., None], -torch.inf).flatten(-2)
        return scores.topk(self.top, dim=-1).indices

    @torch.no_grad()
    def _count(self, experts: torch.Tensor, valid: torch.Tensor | None) -> None:
        """Add what each expert got to `load`."""
        each = torch.ones_like(experts)
        if valid is not None:
            each = each * valid[:, None]
        self.load.index_add_(0, experts.flatten(), each.flatten())

    @torch.no_grad()
    def rebalance(self, pace: float = 1.0) -> None:
        """Move each expert's bias by how far its load is from the mean, in parts of the mean; start counting anew.

        A step of one size for all, the sign of the error, never settles: small enough for that, it does not reach an
        expert that starts with many times the mean.

        Parameters
        ----------
        pace : the part of `router_bias_rate` that this step moves.
        """
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.load)  # every process saw rows of its own, and all move alike
        mean = (self.load * self.active).sum().double() / self.active.sum()
        error = ((mean - self.load) / mean.clamp(min=1e-9)).clamp(min=-FURTHEST) * self.active
        self.bias_steps += (error * (pace * self.bias_rate * MILLION)).round().to(self.bias_steps.dtype)
        self.load.zero_()

    @property
    def temperature(self) -> float:
        """Tau."""
        return int(self.tau) / MILLION

    def set_temperature(self, tau: float) -> None:
        """Route by another tau, in whole millionths, from now on."""
        self.tau.fill_(round(tau * MILLION))

    def use(self, active: torch.Tensor) -> None:
        """Route to these experts only, (E,) booleans, from now on; nothing is reshaped.

        Raises
        ------
        ValueError : when fewer are left, or fewer in the groups that a token may use, than a token needs.
        """
        by_group = active.view(self.groups, -1).sum(-1)
        reach = int(by_group.sort().values[by_group.sort().values > 0][: self.top_groups].sum())
        if reach < self.top:
            raise ValueError(
                f"{int(active.sum())} experts in {int((by_group > 0).sum())} groups are left, and a token needs"
                f" {self.top} of at most {self.top_groups} groups: keep more"
            )
        self.active.copy_(active)
