"""The table [curriculum]: easier rows first, by stages of the training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1core.recipe.table import Fraction, Positive, Table

MEASURES = ("column", "loss")
"""What `difficulty` may be besides "" and a component's `plugin/name`."""


class Stage(Table):
    """[[curriculum.stages]]: a stretch of the training with one share of simple rows."""

    until: Positive | None = Field(
        default=None, description="epochs or steps, from the start, after which it ends; absent = the last"
    )
    simple: Annotated[Fraction, Field(strict=False)] = Field(description="share of its rows that are simple ones")


class Curriculum(Table):
    """[curriculum]: in what mix simple and complex rows are trained on, stage by stage."""

    difficulty: str = Field(
        default="",
        description='what makes a row difficult: `"column"`, `"loss"` (the base model\'s own, nats a token) or a '
        "`plugin/name`; empty = no curriculum",
    )
    column: str = Field(
        default="", description='with `difficulty = "column"`: name in `Example.fields`, such as a column of the file'
    )
    threshold: float = Field(
        default=0.5, gt=0.0, lt=1.0, strict=False, description="share of the rows, the least difficult, that are simple"
    )
    unit: Literal["epoch", "step"] = Field(default="epoch", description="what `until` counts")
    stages: list[Stage] = Field(
        default=[Stage(until=5, simple=1.0), Stage(until=15, simple=0.7), Stage(simple=0.0)],
        min_length=1,
        description="one after the other; a list in a later file or `--set` replaces all of them",
    )

    @model_validator(mode="after")
    def _meaningful(self) -> Curriculum:
        if self.difficulty and self.difficulty not in MEASURES and "/" not in self.difficulty.strip("/"):
            raise ValueError(f'difficulty = "{self.difficulty}", expected "column", "loss" or a plugin/name')
        if self.difficulty == "column" and not self.column:
            raise ValueError('difficulty = "column" needs `column`, the name of the column')
        if self.model_fields_set and "difficulty" not in self.model_fields_set:
            raise ValueError('`difficulty` is missing: "column", "loss" or a plugin/name; "" switches it off')
        *bounded, last = self.stages
        before = 0
        for number, stage in enumerate(bounded, 1):
            if stage.until is None:
                raise ValueError(f"stage {number} has no `until`; only the last one is open")
            if stage.until <= before:
                raise ValueError(f"stage {number} ends at {stage.until}, the one before it at {before}")
            before = stage.until
        if last.until is not None:
            raise ValueError(f"the last stage ends at {last.until}; leave its `until` out, for it goes on to the end")
        return self
