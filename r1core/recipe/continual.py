"""The table [continual]: go on from an earlier run on new data, without forgetting what it learnt."""

from __future__ import annotations

from fractions import Fraction as Exact
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from r1core.recipe.table import Mistake, Positive, Table


class Continual(Table):
    """[continual]: which earlier run training starts from, and what keeps its tasks: replay and a quadratic penalty.

    Elastic weight consolidation: J. Kirkpatrick et al., arXiv:1612.00796.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Annotated[Path | None, Field(strict=False)] = Field(
        default=None,
        alias="from",
        description="directory of the earlier run, as `--continue RUN` sets it; absent: none",
    )
    replay: float = Field(
        default=0.25,
        ge=0.0,
        lt=1.0,
        strict=False,
        description="share of each step's rows that are training rows of the earlier runs; 0 = none",
    )
    ewc: float = Field(
        default=10_000.0,
        ge=0.0,
        strict=False,
        description="lambda of elastic weight consolidation; 1 = the earlier tasks' loss counts as the new one's, "
        "0 = no penalty",
    )
    fisher_rows: Positive = Field(
        default=128, description="training rows of each earlier run on which the Fisher information is measured"
    )
    naive: bool = Field(
        default=True,
        description="also train without replay and penalty, to compare with; takes about as long again",
    )

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Continual:
        if self.from_ is None and (others := sorted(self.model_fields_set - {"from_"})):
            stated = {name: getattr(self, name) for name in others}
            if any(value != type(self).model_fields[name].default for name, value in stated.items()):
                raise Mistake("no earlier run to continue", "name one with --continue RUN, or remove the table", "from")
        return self

    def split(self, batch_size: int) -> tuple[int, int]:
        """How many of a step's rows are of the earlier runs, and how many are new (`replay` rounded, halves up)."""
        earlier = int(Exact(str(self.replay)) * batch_size + Exact(1, 2)) if self.from_ is not None else 0
        return earlier, batch_size - earlier
