"""The tables of the recipe that say what is trained, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from r1core.recipe.table import Fraction, Positive, Table


class Adapter(Table):
    """[adapter]: LoRA (PEFT), arXiv:2106.09685. `targets` are module names, or all linear layers of the blocks."""

    kind: Literal["lora"] = "lora"
    rank: Positive = 16
    alpha: int = Field(default=32, gt=0, strict=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, strict=False)
    targets: list[str] | Literal["all-linear"] = "all-linear"
    first_layer: int = Field(default=0, ge=0, description="blocks below this one stay untouched (and need no backward)")


class Train(Table):
    """[train]: the objective and the optimiser. Learning rates are per optimiser step."""

    objective: Literal["sft"] = "sft"
    epochs: Positive = 1
    steps: int = Field(default=0, ge=0, description="stop after this many optimiser steps; 0 = by epochs")
    batch_size: Positive = Field(default=16, description="rows per optimiser step")
    learning_rate: float = Field(default=1e-3, gt=0.0, strict=False)
    layer_learning_rate: float = Field(default=1e-3, gt=0.0, strict=False, description="for extra layers and gates")
    lora_plus_ratio: float = Field(
        default=1.0, gt=0.0, strict=False, description="learning rate of LoRA's B over that of A (LoRA+); 1 = equal"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, strict=False, description="share of each target spread over the vocabulary"
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: Annotated[Fraction, Field(strict=False)] = 0.05
    weight_decay: float = Field(default=0.0, ge=0.0, strict=False)
    max_grad_norm: float = Field(default=1.0, gt=0.0, strict=False)
    packing: Literal["shared_prefix", "none"] = "shared_prefix"
    checkpoint_every: Positive = Field(default=100, description="optimiser steps")
    keep_checkpoints: Positive = 2
