"""A pass of training, forward and backward, as a CUDA graph that is replayed: launching it costs the host nothing.

A pass over a small model is a thousand kernels of some microseconds, which the host launches more slowly than a GPU
runs them. What the pass reads has to stand in tensors that stay, and its shapes may not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn


class Recorded:
    """One pass, recorded; gradients of a replay stand in the parameters, in place of those before.

    Parameters
    ----------
    run : computes the loss, (), and calls `backward` on it.
    parameters : what gets gradients; they must keep the gradients' tensors.

    Raises
    ------
    RuntimeError : where the recorded pass gives another loss than the pass itself.
    """

    def __init__(self, run: Callable[[], torch.Tensor], parameters: Sequence[nn.Parameter]) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # outside of the recording: kernels are chosen, workspaces allocated
            first = run().item()
            for parameter in parameters:
                parameter.grad = None
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = run()
        if not math.isclose(self().item(), first, rel_tol=1e-2):
            raise RuntimeError(f"the recorded pass gives a loss of {self.loss.item()}, the pass itself {first}")

    def __call__(self) -> torch.Tensor:
        """The loss, ()."""
        self.graph.replay()
        return self.loss
