"""How the blocks compute while training: compiled, and keeping only their inputs for the backward pass.

`torch.compile` goes block by block: one graph serves all blocks of a model, so compiling takes seconds, not minutes.

Hooks stay outside the graph, so extra layers work as they do uncompiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from r1core.api import UserError
from r1core.model.layers import blocks_of
from r1core.model.scores import causal_of
from r1core.recipe.training import Train


def compile_blocks(model: nn.Module) -> None:
    """Compile the forward pass of each decoder block in place."""
    for block in blocks_of(causal_of(model)):
        block.forward = torch.compile(block.forward)


def compiles(config: Train, device: torch.device) -> bool:
    """Whether training compiles: as the recipe says, or where it pays."""
    alike = config.objective != "multitask"  # a pool's layers do other things in every batch
    return config.compile == "on" or (config.compile == "auto" and device.type == "cuda" and alike)


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep each block's input only; its inside is computed again in the backward pass (arXiv:1604.06174).

    Raises
    ------
    UserError : for a model that transformers cannot checkpoint.
    """
    causal = causal_of(model)
    if not causal.supports_gradient_checkpointing:
        raise UserError(
            f"train.gradient_checkpointing: {type(causal).__name__} does not support it",
            fix="set train.gradient_checkpointing = false",
        )
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, then as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
