"""Penalties on the weights themselves: they enter a step once, after its rows' gradients and before clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch


class Penalty(Protocol):
    """A function of the trained weights that is added to the loss. Every rank adds the same one."""

    def add(self) -> torch.Tensor:
        """Add its gradient to the weights' `.grad`; return its value, (), on their device. Waits for no device."""
        ...


class ElasticWeightConsolidation:
    """`lambda / 2 * sum_i F_i (theta_i - theta*_i)^2`: J. Kirkpatrick et al., arXiv:1612.00796, equation 3.

    Parameters
    ----------
    weights : theta by name; `theta*` is what they hold now.
    fisher : diagonal Fisher information F by the same names, non-negative.
    strength : lambda.
    """

    def __init__(
        self, weights: Mapping[str, torch.nn.Parameter], fisher: Mapping[str, torch.Tensor], strength: float
    ) -> None:
        if weights.keys() != fisher.keys():
            raise ValueError(f"no Fisher information of {sorted(weights.keys() ^ fisher.keys())[:3]}")
        self._weights: list[torch.Tensor] = list(weights.values())
        self._anchors = [weight.detach().clone() for weight in self._weights]
        self._scaled = [strength * fisher[name].to(weight) for name, weight in weights.items()]

    @torch.no_grad()
    def add(self) -> torch.Tensor:
        """Add `lambda F (theta - theta*)` to the gradients; return the penalty, ()."""
        moved = torch._foreach_sub(self._weights, self._anchors)
        slopes = torch._foreach_mul(moved, self._scaled)
        torch._foreach_mul_(moved, slopes)
        value = torch.stack([part.sum() for part in moved]).sum() / 2
        for weight, slope in zip(self._weights, slopes, strict=True):
            if weight.grad is None:
                weight.grad = slope
            else:
                weight.grad += slope
        return value


class Proximal(ElasticWeightConsolidation):
    """`mu / 2 * ||w - w_0||^2`, which is the same with F = 1: T. Li et al., arXiv:1812.06127 (FedProx), equation 2.

    Parameters
    ----------
    weights : w by name; `w_0` is what they hold now.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], mu: float) -> None:
        super().__init__(weights, {name: torch.ones_like(weight) for name, weight in weights.items()}, mu)
