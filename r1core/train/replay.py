"""Forward and backward passes recorded once as a CUDA graph and replayed: the host launches one thing, not thousands.

A pass of a small model is a few thousand kernels of some ten microseconds; launching them one by one takes the host
longer than the GPU takes to run them. Batches are padded to few shapes (`data.packing.Layout`), and a shape that comes
a second time is recorded. What is replayed is the very work that would be launched, so the results are the same.

Not covered: passes that draw random numbers (dropout), extra layers with spans in the batch, private training and
several ranks; these run as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

from r1core.data.packing import TENSORS, Batch

MOST_GRAPHS = 12
"""Shapes kept; each graph holds its inputs and gradients, the memory in between is shared."""

Pass = Callable[[Batch, torch.Tensor], torch.Tensor]
"""Forward and backward: adds to the gradients of `loss * factor`, `factor` (), and returns the loss, ()."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: Batch
    factor: torch.Tensor
    loss: torch.Tensor
    grads: Sequence[torch.Tensor | None]


class Replay:
    """Runs passes on a GPU, recorded where their shape has been seen before."""

    def __init__(self, run: Pass, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.run, self.parameters = run, parameters
        self._seen: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, batch: Batch, factor: float, *, alone: bool) -> torch.Tensor:
        """Add this batch's gradients; return its loss, ().

        Parameters
        ----------
        factor : what the loss is multiplied by before the backward pass.
        alone : the step has no other batch, so its gradients may stay where the graph left them.
        """
        key = _shape(batch)
        if key not in self._seen:
            self._seen.add(key)
            return self.run(batch, torch.tensor(factor, device=batch.input_ids.device))
        if key not in self._graphs:
            self._graphs[key] = self._record(batch, factor)
            if len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        one = self._graphs[key]
        for name in TENSORS:
            if (into := getattr(one.batch, name)) is not None:
                into.copy_(getattr(batch, name), non_blocking=True)
        one.factor.fill_(factor)
        one.graph.replay()
        self._add(one.grads, alone)
        return one.loss.clone()

    def _record(self, batch: Batch, factor: float) -> _Recorded:
        held = [p.grad for p in self.parameters]
        static = batch.copied()
        scale = torch.tensor(factor, device=batch.input_ids.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # once outside of the recording: kernels are chosen, workspaces allocated
            self._clear()
            self.run(static, scale)
        torch.cuda.current_stream().wait_stream(aside)
        self._clear()
        graph = torch.cuda.CUDAGraph()
        # The thread that prepares the next batch allocates meanwhile, which concerns this recording in no way.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = self.run(static, scale)
        grads = [p.grad for p in self.parameters]
        for parameter, grad in zip(self.parameters, held, strict=True):
            parameter.grad = grad
        return _Recorded(graph, static, scale, loss, grads)

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _add(self, grads: Sequence[torch.Tensor | None], alone: bool) -> None:
        """Add a graph's gradients to the parameters'; the graph's own memory is written anew by its next replay."""
        old, new = [], []
        for parameter, grad in zip(self.parameters, grads, strict=True):
            if grad is None:
                continue
            if parameter.grad is None:
                parameter.grad = grad if alone else grad.clone()
            else:
                old.append(parameter.grad)
                new.append(grad)
        if old:
            torch._foreach_add_(old, new)


def _shape(batch: Batch) -> Hashable:
    """What a recording depends on besides the values."""
    given = [(name, None if (t := getattr(batch, name)) is None else tuple(t.shape)) for name in TENSORS]
    return (*given, batch.rows, batch.longest)
