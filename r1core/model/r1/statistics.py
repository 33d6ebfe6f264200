"""How many tokens each expert of an R1 gets, by layer and by domain.

Counts are exact and of whole passes: what a router chose is read off its output, so that switched-off experts, biases
and temperature are in them as they are in the answer. Counts of different layers are never added up: opposite
imbalances would cancel.

N = tokens of a pass, L = layers, D = domains, E = experts, K = experts of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from r1core.model.r1.model import R1ForCausalLM
from r1core.model.r1.routing import Routing

NOBODY = -1
"""Owner of a token that is not counted (padding)."""


class RoutingCounts:
    """Counts while `counting` is entered; `table` is (L, D, E) int64, each token K times in a layer."""

    def __init__(self, model: R1ForCausalLM, domains: int) -> None:
        self.blocks, self.domains, self.experts = model.feed_forwards(), domains, model.config.num_experts
        shape = (len(self.blocks), domains, self.experts)
        self.table = torch.zeros(shape, dtype=torch.int64, device=model.device)

    @contextmanager
    def counting(self, owner: torch.Tensor) -> Iterator[None]:
        """Count the passes inside; `owner` (N,) int64 is each token's domain, in the order of the flattened batch.

        Raises
        ------
        ValueError : when a pass has another number of tokens.
        """
        hooks = [
            block.router.register_forward_hook(self._hook(layer, owner))  # the one in use, an adapter's or the base's
            for layer, block in enumerate(self.blocks)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int, owner: torch.Tensor) -> Any:
        def counted(_module: nn.Module, _inputs: tuple[Any, ...], routing: Routing) -> None:
            chosen = routing.experts
            if len(chosen) != len(owner):
                raise ValueError(f"a pass of {len(chosen)} tokens, and {len(owner)} owners are known")
            kept = owner != NOBODY
            place = (owner[:, None] * self.experts + chosen)[kept].flatten()
            found = torch.bincount(place, minlength=self.domains * self.experts)
            self.table[layer] += found.view(self.domains, self.experts)

        return counted
