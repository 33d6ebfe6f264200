"""Unit gradients clipped as one and summed: what bounds the part that any unit can have in a step.

R = rows of a pass, U = units of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

TOGETHER = 64  # weights whose gradients are joined on a GPU


def by_unit(gradients: Sequence[torch.Tensor], rows: Sequence[int]) -> list[torch.Tensor]:
    """The sum over the rows of each unit, `(U, *shape)` fp32, of gradients `(R, *shape)`.

    `rows` : how many rows each unit has, one unit behind the other; R in all.
    """
    if len(gradients[0]) == len(rows):  # one row each
        return [gradient.float() for gradient in gradients]
    device = gradients[0].device
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(rows)).to(device)
    empty = [g.new_zeros(len(rows), *g.shape[1:], dtype=torch.float32) for g in gradients]
    return [total.index_add_(0, owner, g.float()) for total, g in zip(empty, gradients, strict=True)]


def add_clipped(total: torch.Tensor, gradients: Sequence[torch.Tensor], max_norm: float) -> None:
    """Add unit gradients, each scaled down to an L2 norm of at most `max_norm` over all weights together.

    A unit whose gradient is not finite counts as zero: leaving it out moves the sum by no more than any other unit may.

    Parameters
    ----------
    total : (P,) fp32, of all weights one behind another. gradients : `(U, *shape)` of each weight.
    """
    parts = _joined(gradients)
    squares = torch.stack([torch.linalg.vector_norm(part, dim=1).double().square() for part in parts])
    norms = squares.sum(0).sqrt()  # (U,)
    sound = norms.isfinite()
    factors = torch.where(sound, max_norm / norms.clamp(min=max_norm), 0.0).float()
    if total.is_cuda or not bool(sound.all()):  # asking a GPU would wait for it
        parts = [torch.where(sound[:, None], part, 0.0) for part in parts]
    at = 0
    for part in parts:
        total[at : at + part.shape[1]].addmv_(part.t(), factors)
        at += part.shape[1]


def _joined(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients as matrices (U, n), in order; on a GPU a few large ones, since each operation costs a launch."""
    flat = [gradient.flatten(1) for gradient in gradients]
    if not flat[0].is_cuda:
        return flat
    return [torch.cat(flat[first : first + TOGETHER], 1) for first in range(0, len(flat), TOGETHER)]
