"""The table [pool]: task adapters over one base, chosen by a gate on a learned task token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1core.recipe.table import Mistake, Positive, Table

Routing = Literal["soft", "hard", "top_k"]


class Pool(Table):
    """[pool]: read with `train.objective = "multitask"`. Rank, alpha and targets of each adapter are `[adapter]`'s."""

    tasks: Positive = Field(
        default=10, description="tasks that the pool may ever hold, those added later included; each has one adapter"
    )
    routing: Routing = Field(
        default="soft",
        description="`soft` = all adapters, weighted by `softmax(gate(token))`; `top_k` = the heaviest of them; "
        "`hard` = the task's own alone",
    )
    top_k: Positive = Field(default=2, description='adapters of a task with `routing = "top_k"`')
    width: Positive = Field(default=256, description="width of a task token")
    prepend: bool = Field(
        default=True, description="the task token, projected to the model's width, stands before each row too"
    )
    extends: Annotated[Path | None, Field(strict=False)] = Field(
        default=None, description="run whose trained pool this one adds tasks to; all that is in it stays as it is"
    )

    @model_validator(mode="after")
    def _room(self) -> Pool:
        if 2 * self.tasks > self.width:  # tokens and gate rows start orthogonal to one another
            raise Mistake(
                f"width = {self.width} for {self.tasks} tasks", f"set width to at least {2 * self.tasks}", key="width"
            )
        if self.routing == "top_k" and self.top_k > self.tasks:
            raise Mistake(
                f"top_k = {self.top_k} of {self.tasks} adapters", f"set it to at most {self.tasks}", key="top_k"
            )
        return self
