"""Tensors that may be cut over processes along their first axis (torch's `DTensor`), as FSDP2 cuts weights."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor


def is_cut(tensor: torch.Tensor) -> bool:
    """Whether this process holds a slice of it only."""
    return isinstance(tensor, DTensor) and tensor.ndim > 0


def slice_of(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: itself, where it is not cut. Shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, gathered from every process, which all have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_slice(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a stored tensor, whole or this very slice, what belongs where `like` stands on this process."""
    if not isinstance(like, DTensor) or tensor.shape == like.to_local().shape:
        return tensor
    pieces = tensor.chunk(like.device_mesh.size())  # as FSDP2 cuts: along the first axis, the last pieces short or none
    rank = like.device_mesh.get_local_rank()
    return pieces[rank] if rank < len(pieces) else tensor[:0]
