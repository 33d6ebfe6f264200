"""The shape of a privacy policy: clips each row's gradient. It adds no noise, so it gives NO privacy guarantee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1core import api

if TYPE_CHECKING:
    import torch

MAX_NORM = 1.0


class ClippedRows:
    """Leaves in `.grad` the sum of the rows' gradients, each of norm at most `MAX_NORM` divided by its weight."""

    name = "privacy/clipped-rows"

    def attach(self, model: torch.nn.Module, groups: Sequence[str]) -> None:
        """Nothing to prepare here."""

    def backward(self, loss_sums: torch.Tensor, weights: torch.Tensor) -> None:
        """`loss_sums`, `weights` : (B,). Adds to `.grad`, since one step may call it several times."""
        import torch

        leaves = _leaves(loss_sums)
        for loss, weight in zip(loss_sums, weights, strict=True):
            grads = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
            norm = torch.sqrt(sum((g.square().sum() for g in grads if g is not None), torch.zeros(())))
            factor = (MAX_NORM / norm.clamp(min=MAX_NORM)) / weight
            for leaf, grad in zip(leaves, grads, strict=True):
                if grad is not None:
                    leaf.grad = grad * factor if leaf.grad is None else leaf.grad + grad * factor

    def card(self) -> Mapping[str, api.JSON]:
        """What the policy guarantees, and what not."""
        return {"max_norm": MAX_NORM, "noise": 0.0, "guarantee": "none"}

    def fingerprint(self) -> str:
        """Changes with the norm."""
        return str(MAX_NORM)


def _leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """The trainable tensors that a loss depends on, found in its graph."""
    found, seen, waiting = [], set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


@api.hookimpl
def privacy(ctx: api.Context) -> api.PrivacyPolicy | None:
    """The run's one policy; None would mean that this plugin brings none."""
    return ClippedRows()
