"""How the processes of a training become one: who they are, and how their gradients are summed and clipped.

`ddp`: every process holds all weights and computes its share of each batch; gradients are summed once a step, in one
message. `fsdp2`: weights are cut over the processes (`r1core.model.sharding`), whose gradients are summed inside the
backward pass; so every process has to run equally many passes, and one that is short of rows runs an idle one.

The launcher (`torchrun`, or the forked processes of one machine) is met through accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from r1core.api import R1Error
from r1core.model.sharding import sharded, sum_gradients
from r1core.model.slices import whole


class Together:
    """The processes that train this model; one alone counts as well.

    Raises
    ------
    R1Error : when a launcher promised another number of processes than there are.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.accelerator = Accelerator(cpu=device.type == "cpu")  # unasked, it runs CPU ranks as lone processes
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        self.model, self.sharded = model, sharded(model)
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world != expected:
            raise R1Error(f"the launcher promised {expected} processes, {self.world} run")

    def before_pass(self, *, last: bool) -> None:
        """Prepare a forward and backward pass; gradients of cut weights are summed in the last one of a step."""
        if self.sharded:
            sum_gradients(self.model, last)

    def summed(self, trainable: Sequence[nn.Parameter], total: torch.Tensor, used: float) -> tuple[torch.Tensor, float]:
        """Sum the gradients that are not summed yet; return all processes' loss `total` () and CPU seconds `used`.

        Once a step and in one message: processes may hold different numbers of rows and micro-batches, the last batch
        none at all, and a collective inside the backward pass would then wait forever.
        """
        if self.world == 1:
            return total, used
        mine = [p for p in trainable if not isinstance(p, DTensor)]
        given = [float(p.grad is not None) for p in mine]
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in mine]
        flat = torch.cat([*parts, total[None], torch.tensor([*given, used], device=total.device)])
        *sums, counts = self.accelerator.reduce(flat, "sum").split([*(p.numel() for p in mine), 1 + len(given) + 1])
        held = counts.tolist()
        for parameter, summed, count in zip(mine, sums, held[1:-1], strict=True):
            parameter.grad = summed.view_as(parameter).clone() if count else None
        return counts[0], held[-1]

    def clip(self, trainable: Sequence[nn.Parameter], limit: float) -> torch.Tensor:
        """Scale all gradients down to a norm of at most `limit`; return the norm before, ()."""
        if not self.sharded:
            return clip_grad_norm_(trainable, limit)
        parts = [[p for p in trainable if isinstance(p, DTensor) == cut] for cut in (True, False)]
        grads = [[p.grad for p in part if p.grad is not None] for part in parts]
        norm = torch.linalg.vector_norm(torch.stack([whole(get_total_norm(some)) for some in grads if some]))
        for part in parts:
            clip_grads_with_norm_(part, limit, norm)
        return norm
