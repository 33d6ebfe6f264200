"""The section `[plugins.events]` of a recipe."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Settings; all have defaults.

    Parameters
    ----------
    taxonomy : folders with further groups, one TOML file each.
    model : weights fitted for that taxonomy; None for those that ship.
    threshold : least probability of an event; None for the one chosen while fitting.
    seed : of the generated data set.
    fillings : how often each template is filled in the generated data set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    taxonomy: list[Path] = []
    model: Path | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    seed: int = 0
    fillings: int = Field(default=4, ge=1)
