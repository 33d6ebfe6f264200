"""The feed-forward part of a block of R1, and the routers' losses that it keeps of a pass in training.

B = batch, T = tokens, H = model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

from r1core.model.r1.adaptation import R1DomainAdaptation
from r1core.model.r1.balance import balance_loss, z_loss
from r1core.model.r1.config import R1Config
from r1core.model.r1.experts import R1Experts
from r1core.model.r1.routing import R1Router


class R1FeedForward(nn.Module):
    """Shared expert, routed experts and the layer across groups, summed."""

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.router = R1Router(config)
        self.experts = R1Experts(config)
        self.shared = LlamaMLP(config) if config.intermediate_size else None
        self.adaptation = R1DomainAdaptation(config) if config.adaptation_rank else None
        self.balance_weight, self.z_weight = config.router_aux_loss_coef, config.router_z_loss_coef
        self.losses: torch.Tensor | None = None  # of the last pass in training, with its graph
        self.collects = False  # outside of a pass a checkpoint computes again, and its graph has to go

    def forward(self, hidden: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """(B, T, H) -> (B, T, H); where `valid` (B, T) is False a token counts in no loss."""
        flat = hidden.flatten(0, 1)
        counted = None if valid is None else valid.flatten()
        routing = self.router(flat, counted)
        out = self.experts(flat, routing.experts, routing.weights).view_as(hidden)
        if self.adaptation is not None:
            out = out + self.adaptation(hidden, routing.logits.unflatten(0, hidden.shape[:-1]))
        if self.training:
            balance, large = balance_loss(routing, counted), z_loss(routing, counted)
            losses = self.balance_weight * balance + self.z_weight * large
            if torch.compiler.is_compiling() or self.collects:  # a compiled block is one, whoever runs it
                self.losses = losses
        return out if self.shared is None else self.shared(hidden) + out


@contextmanager
def collecting(blocks: Sequence[R1FeedForward], training: bool) -> Iterator[None]:
    """Inside, blocks keep the routers' losses of this pass, if it is one in training; those of the last are dropped."""
    for block in blocks:
        block.losses, block.collects = None, training
    try:
        yield
    finally:
        for block in blocks:
            block.collects = False
