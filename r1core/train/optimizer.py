"""The optimiser and its learning rates: one group a role, each with the rate that the schedule scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from r1core.model.adapted import adapted_of
from r1core.model.layers import ExtraLayers
from r1core.recipe.strategy import ROLES, Treatment
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


def adamw(model: torch.nn.Module, layers: ExtraLayers, config: Train) -> torch.optim.AdamW:
    """AdamW over the adapter and the extra layers; `base_lr` of each group is what the schedule scales.

    Where the adapter was made by a strategy, each role has groups with the rate and decay that it states; else all of
    the adapter is one. LoRA's B matrices get `lora_plus_ratio` times the rate of what else is trained in their role
    (LoRA+, arXiv:2402.12354, section 4). Biases and DoRA's magnitudes do not decay; norms do where their role says so.
    """
    adapted = adapted_of(model)
    found: dict[tuple[int, bool, bool], dict[str, Any]] = {}
    for one in adapted.trained():
        ruled = adapted.strategy.given
        treatment = adapted.treatment(one.role) if ruled else Treatment("lora")
        decays = one.parameter.ndim > 1 or one.role == "norms"
        key = (ROLES.index(one.role) if ruled else -1, one.up, not decays)
        rate, decay = treatment.learning_rate or config.learning_rate, treatment.weight_decay
        group: dict[str, Any] = {
            "params": [],
            "role": one.role if ruled else "adapter",
            "base_lr": rate * (config.lora_plus_ratio if one.up else 1.0),
            "weight_decay": _decay(one.role, decay, config.weight_decay) if decays else 0.0,
        }
        found.setdefault(key, group)["params"].append(one.parameter)
    groups = [found[key] for key in sorted(found)]
    if extra := list(layers.parameters()):
        groups.append({"params": extra, "role": "layers", "base_lr": config.layer_learning_rate, "weight_decay": 0.0})
    groups = [{**group, "lr": group["base_lr"]} for group in groups]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def _decay(role: str, stated: float | None, default: float) -> float:
    """A role's weight decay: what the strategy states, or `train.weight_decay`, of which norms are exempt."""
    return stated if stated is not None else 0.0 if role == "norms" else default


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
