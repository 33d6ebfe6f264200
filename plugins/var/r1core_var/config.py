"""The plugin's section of the recipe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from r1core_var.advice_config import AdviceConfig


class VarConfig(BaseModel):
    """The plugin's section of the recipe.

    Parameters
    ----------
    level : confidence at which answers are scored, such as 0.99.
    advice : holds orders in answers to a risk limit; without the section, answers are free.
    loss_field : field of a record that holds the realised loss (positive), in the unit of the answers.
    """

    model_config = ConfigDict(extra="forbid")

    level: float = Field(default=0.99, gt=0.5, lt=1.0)
    loss_field: str = "loss"
    advice: AdviceConfig | None = None
