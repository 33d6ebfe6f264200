"""Losses and figures of expert balance.

Both losses are means over the tokens of a batch, so they belong to the batch and to no sample; a privacy policy
refuses them. N = tokens, E = experts, K = experts of a token.
"""

from __future__ import annotations

import torch

from r1core.model.r1.routing import Routing


def balance_loss(routing: Routing, valid: torch.Tensor | None = None) -> torch.Tensor:
    """`E * sum_e f_e P_e`, (): 1 where tokens and probabilities are spread evenly.

    W. Fedus et al., arXiv:2101.03961, equation 4, with f the share of the N K assignments and P the mean probability;
    of the tokens where `valid` (N,) holds. Experts that are switched off count in neither.
    """
    logits, experts, _ = routing
    each = torch.ones(len(experts), device=logits.device) if valid is None else valid.to(torch.float32)
    number = each.sum().clamp(min=1)
    share = torch.zeros(logits.shape[-1], device=logits.device)
    share.index_add_(0, experts.flatten(), each[:, None].expand(experts.shape).flatten())
    mean = (logits.softmax(-1) * each[:, None]).sum(0) / number
    active = torch.isfinite(logits[0]).sum()
    return active * (share / (number * experts.shape[-1]) * mean).sum()


def z_loss(routing: Routing, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared log-sum-exp of the router's logits, (): B. Zoph et al., arXiv:2202.08906, equation 5."""
    squared = routing.logits.logsumexp(-1).square()
    if valid is None:
        return squared.mean()
    return (squared * valid).sum() / valid.sum().clamp(min=1)


def spread(load: torch.Tensor) -> float:
    """Standard deviation of tokens per expert over their mean, from counts (E,) of one layer.

    Even routing at random spreads too: sqrt(E / (N K)) of N tokens, 6 % for 16,384 tokens, top-2 of 128.
    """
    load = load.double()
    return float(load.std(correction=0) / load.mean())
