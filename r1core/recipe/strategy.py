"""[strategy]: what each role of layer gets, frozen, LoRA or full training, and its own learning rate.

A role is an entry of `ROLES`; which weights play it is told by their names (`r1core.model.roles`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from r1core.recipe.table import Table

Mode = Literal["frozen", "lora", "full"]
ROLES = (
    "embeddings",
    *("shallow_attention", "middle_attention", "deep_attention"),
    *("shallow_feed_forward", "middle_feed_forward", "deep_feed_forward"),
    "norms",
    "output",
)
"""Every role, in the order of the optimiser's groups."""
NO_LORA = frozenset({"embeddings", "norms"})
"""Roles without a linear layer."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What one role gets.

    Parameters
    ----------
    learning_rate : at its highest; None = `train.learning_rate`.
    weight_decay : of its matrices (of its vectors too where the role is `norms`); None = `train.weight_decay`.
    """

    mode: Mode
    learning_rate: float | None = None
    weight_decay: float | None = None


class Role(Table):
    """[strategy.ROLE]: a key that is left out keeps what the preset says, or else the default."""

    mode: Mode | None = Field(
        default=None, description="`lora` = the kind of `adapter.kind`; absent = the preset's, or the default's"
    )
    learning_rate: float | None = Field(
        default=None, gt=0.0, strict=False, description="at its highest; absent = the preset's or `train.learning_rate`"
    )
    weight_decay: float | None = Field(
        default=None, ge=0.0, strict=False, description="absent = the preset's or `train.weight_decay`"
    )


DEFAULT: dict[str, Treatment] = {
    role: Treatment("lora" if "attention" in role or "feed_forward" in role else "frozen") for role in ROLES
}
"""Without a preset: LoRA in every block."""
PRESETS: dict[str, dict[str, Treatment]] = {
    "": DEFAULT,
    "guide": {
        "embeddings": Treatment("frozen"),
        "shallow_attention": Treatment("lora", 1e-5, 0.01),
        "middle_attention": Treatment("lora", 2e-5, 0.02),
        "deep_attention": Treatment("lora", 3e-5, 0.03),
        "shallow_feed_forward": Treatment("lora", 1e-5, 0.01),
        "middle_feed_forward": Treatment("lora", 2e-5, 0.02),
        "deep_feed_forward": Treatment("lora", 3e-5, 0.03),
        "norms": Treatment("frozen"),
        "output": Treatment("full", 5e-5, 0.05),
    },
}
"""`guide`: rates and decay grow from the input to the output (discriminative fine-tuning, arXiv:1801.06146, section
3.2): the lowest layers hold what every domain shares, the output layer has to learn the domain's own words."""


class Strategy(Table):
    """[strategy]: the layer-wise table. Empty, it is LoRA on `adapter.targets` from `adapter.first_layer` on."""

    preset: Literal["", "guide"] = ""
    untie: bool = Field(
        default=False, description="give a tied output head weights of its own, so that it can be trained by itself"
    )
    embeddings: Role | None = None
    shallow_attention: Role | None = None
    middle_attention: Role | None = None
    deep_attention: Role | None = None
    shallow_feed_forward: Role | None = None
    middle_feed_forward: Role | None = None
    deep_feed_forward: Role | None = None
    norms: Role | None = None
    output: Role | None = None

    @property
    def given(self) -> bool:
        """Whether the recipe states anything about a role."""
        return bool(self.preset) or any(getattr(self, role) is not None for role in ROLES)

    def stated(self, role: str) -> bool:
        """Whether a preset or the recipe itself says something about this role."""
        return bool(self.preset) or getattr(self, role) is not None

    def treatments(self) -> dict[str, Treatment]:
        """What each role gets, the recipe's own keys over the preset's."""
        return {role: self._treatment(role) for role in ROLES}

    def _treatment(self, role: str) -> Treatment:
        own: Role | None = getattr(self, role)
        known = PRESETS[self.preset][role]
        return replace(known, **own.model_dump(exclude_none=True)) if own is not None else known

    @model_validator(mode="after")
    def _possible(self) -> Strategy:
        for role, treatment in self.treatments().items():
            if treatment.mode == "lora" and role in NO_LORA:
                raise ValueError(f'{role}.mode = "lora": {role} have no linear layer; use "full" or "frozen"')
            own: Role | None = getattr(self, role)
            if treatment.mode == "frozen" and own is not None and (own.learning_rate or own.weight_decay):
                raise ValueError(f'{role} is frozen and has no learning rate or decay; set {role}.mode = "full"')
        return self
