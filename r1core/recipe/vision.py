"""The table [model.vision]: an image encoder whose features the language model looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1core.recipe.table import Mistake, Positive, Table

Mode = Literal["fusion", "seed"]
WIDTH = 768
"""Width at which text and image meet."""


class Vision(Table):
    """[model.vision]: read where records have images (`data.columns.images`). Nothing is fetched."""

    path: Annotated[Path, Field(strict=False)] = Field(description="directory of a Hugging Face image encoder")
    sites: list[str] = Field(
        default=["block:0", "block:1"],
        min_length=1,
        description="where the language model looks at the image: `block:i` (behind decoder block i, negative from the"
        " end), `embedding` or `head`",
    )
    mode: Mode = Field(
        default="fusion",
        description="`fusion` = queries, keys and values of its own, heads, gates and a weight per token; `seed` ="
        " `softmax(T I^T / sqrt(768)) I + T`, without weights between the two projections",
    )
    heads: Positive = Field(default=12, description="heads of the attention from text to image, a divisor of 768")
    train_tower: bool = Field(default=False, description="the image encoder is trained too, and saved with the adapter")

    @model_validator(mode="after")
    def _possible(self) -> Vision:
        if WIDTH % self.heads:
            raise Mistake(f"heads = {self.heads} does not divide {WIDTH}", "set heads = 12", key="heads")
        if len(set(self.sites)) < len(self.sites):
            raise Mistake(f"sites = {self.sites} names one twice", "name each once", key="sites")
        return self
