"""The optimiser and its learning rates: one group a role, each with the rate that the schedule scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from r1core.model.layers import ExtraLayers
from r1core.recipe.training import Train


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning-rate factor by step: linear warm-up, then cosine, linear or constant."""

    shape: str
    total: int
    warmup: int

    def factor(self, step: int) -> float:
        """Factor in [0, 1] for the step that is about to be taken (0-based)."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "constant":
            return 1.0
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * progress)) if self.shape == "cosine" else 1.0 - progress


def adamw(model: PeftModel, layers: ExtraLayers, config: Train) -> torch.optim.AdamW:
    """AdamW over the adapter and the extra layers; `base_lr` of each group is what the schedule scales.

    LoRA's B matrices get `lora_plus_ratio` times the rate of the A matrices (LoRA+, arXiv:2402.12354, section 4).
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    rate = config.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trained if ".lora_B." not in name], "base_lr": rate},
        {"params": [p for name, p in trained if ".lora_B." in name], "base_lr": rate * config.lora_plus_ratio},
        {"params": list(layers.parameters()), "base_lr": config.layer_learning_rate, "weight_decay": 0.0},
    ]
    groups = [{**group, "lr": group["base_lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
