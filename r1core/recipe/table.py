"""What every table of the recipe is built from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Table(BaseModel):
    """A TOML table: strict types, unknown keys refused, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Mistake(ValueError):
    """What a validator refuses, with what to do about it.

    Parameters
    ----------
    key : the key that is wrong, where the validator sees its whole table.
    """

    def __init__(self, message: str, fix: str, key: str = "") -> None:
        super().__init__(message)
        self.fix, self.key = fix, key
