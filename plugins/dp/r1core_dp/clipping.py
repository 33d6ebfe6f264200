"""Unit gradients clipped as one and summed: what bounds the part that any unit can have in a step.

R = rows of a pass, U = units of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def by_unit(gradients: Sequence[torch.Tensor], unit: torch.Tensor, units: int) -> list[torch.Tensor]:
    """The sum over the rows of each unit, `(U, *shape)` fp32, of gradients `(R, *shape)`; `unit` (R,)."""
    if len(unit) == units:  # one row each, in this order
        return [gradient.float() for gradient in gradients]
    return [g.new_zeros(units, *g.shape[1:], dtype=torch.float32).index_add_(0, unit, g.float()) for g in gradients]


def clipped_sum(gradients: Sequence[torch.Tensor], max_norm: float) -> list[torch.Tensor]:
    """The sum of unit gradients, each scaled down to an L2 norm of at most `max_norm` over all weights together.

    A unit whose gradient is not finite counts as zero: leaving it out moves the sum by no more than any other unit may.

    Parameters
    ----------
    gradients : `(U, *shape)` of each weight.
    """
    squares = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1).double().square() for g in gradients])
    norms = squares.sum(0).sqrt()  # (U,)
    sound = norms.isfinite()
    factors = torch.where(sound, max_norm / norms.clamp(min=max_norm), 0.0)
    if not bool(sound.all()):
        gradients = [torch.where(sound.view(-1, *[1] * (g.ndim - 1)), g, 0.0) for g in gradients]
    return [(factors.to(g.dtype) @ g.flatten(1)).view(g.shape[1:]) for g in gradients]
