"""A model cut over processes by torch's FSDP2: each holds a slice of every weight and gathers a block when it is due.

Gradients of the slices are summed over the processes, never averaged: the loss is normalised by the whole batch's
weight before. What is trained keeps its fp32 beside a base of another dtype.

Not covered: weights outside the model's tree (extra layers), which every process holds whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.model.layers import blocks_of
from r1core.model.scores import BODY, causal_of


def shard(model: nn.Module, device: torch.device, world: int) -> None:
    """Cut the model's weights over all processes of the default group, in place; they move to `device` piece by piece.

    Raises
    ------
    UserError : for a model whose blocks are not a list of its decoder.
    """
    causal = causal_of(model)
    blocks = blocks_of(causal)
    if not blocks:
        raise UserError(
            f'train.parallel = "fsdp2": the blocks of {type(causal).__name__} are not found',
            fix='set train.parallel = "ddp"',
        )
    mesh = init_device_mesh(device.type, (world,))
    for module in (*blocks, causal):
        fully_shard(module, mesh=mesh)
    setattr(causal, BODY, MethodType(_body, causal))
    register_fsdp_forward_method(causal, BODY)
    for cut in _cut(causal):
        cut.set_gradient_divide_factor(1.0)
        cut.set_force_sum_reduction_for_comms(True)


def sharded(model: nn.Module) -> bool:
    """Whether the model has been cut."""
    return isinstance(causal_of(model), FSDPModule)


def sum_gradients(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass sums the gradients over the processes, or leaves them to a later one."""
    for module in _cut(causal_of(model)):
        module.set_requires_gradient_sync(now, recurse=False)


def _cut(causal: PreTrainedModel) -> Iterator[FSDPModule]:
    return (module for module in causal.modules() if isinstance(module, FSDPModule))


def _body(self: PreTrainedModel, **inputs: Any) -> Any:
    """The model without its head; called on the root, so that what the root holds is gathered too."""
    return self.base_model(**inputs)
