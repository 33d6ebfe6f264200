"""The plugin's section of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Measure = Literal["instant", "quarter", "six_months", "nine_months", "year", "ttm"]


class AlignmentConfig(BaseModel):
    """The plugin's section of the recipe.

    Parameters
    ----------
    files : companyfacts JSON or CSV of tidy facts, plain or .gz.
    concepts : what every record is given, in full (`us-gaap:Assets`) or without the taxonomy.
    measures : of these concepts. lag, max_age, additive, non_additive : as `align` takes them.
    entity : the column (`Example.fields`) or fact that names a record's entity.
    names : a record's name for an entity, where the files have another: `{SNOW = "CIK0001640147"}`.
    unnamed : what becomes of a record that names no entity: it is refused, or left as it is.
    prompt : append what was known to the last user message, for the model to read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[Path, ...] = Field(min_length=1)
    concepts: tuple[str, ...] = Field(min_length=1)
    measures: tuple[Measure, ...] = Field(default=("instant", "quarter", "year", "ttm"), min_length=1)
    lag: int = Field(default=0, ge=0, le=3_650)
    max_age: int | None = Field(default=None, ge=0, le=73_000)
    additive: tuple[str, ...] = ()
    non_additive: tuple[str, ...] = ()
    entity: str = Field(default="entity", min_length=1)
    names: dict[str, str] = Field(default_factory=dict)
    unnamed: Literal["refuse", "leave"] = "refuse"
    prompt: bool = False
