"""The plugin's section of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_REFUSED = {
    "accountant": {
        "gdp": "the central-limit accountant states an epsilon of 3 where the truth is 5.15 (a batch of 64 of 10,000)",
        "rdp": "Renyi accounting asks for a ninth more noise than is needed; PRV is checked against PLD instead",
    },
    "sampling": {
        "shuffle": "the accountants hold for Poisson sampling; shuffled batches cost more than they would state"
    },
}


_SEEDS = ("seed", "noise_seed", "generator")


class DpConfig(BaseModel):
    """The plugin's section of the recipe.

    Parameters
    ----------
    dataset_id : name of the data set in the ledger: whatever is trained on it draws on one budget.
    epsilon : of one training, for each unit, under add-or-remove-one-unit adjacency.
    delta : None = N^-1.1 for N units.
    budget : epsilon that the data set may spend in all, over all trainings; None = `epsilon`. Fixed when the ledger is
        begun.
    max_grad_norm : L2 norm to which the gradient of a unit is clipped.
    unit : `group`, everything of one group (patient); `record`, one record: then the epsilon of a group with several
        records is larger, and is told as well.
    max_records : records of a unit that are used, at most; the first ones, in the order of the training rows.
    namespace : of the ids of groups and records: in one namespace the same id is the same person in every data set.
    ledger : folder of the ledgers; None = `$R1CORE_LEDGERS`, or `~/.local/share/r1core/ledgers`.
    engine : where row gradients come from: `r1core`, or the hooks of `opacus`.
    accountant, sampling : there is one choice of each; others are refused with the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    epsilon: float = Field(default=3.0, gt=0.0)
    delta: float | None = Field(default=None, gt=0.0, lt=1.0)
    budget: float | None = Field(default=None, gt=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    unit: Literal["group", "record"] = "group"
    max_records: int = Field(default=8, ge=1)
    namespace: str = Field(default="", max_length=200)
    ledger: Path | None = None
    engine: Literal["r1core", "opacus"] = "r1core"
    accountant: str = "prv"
    sampling: str = "poisson"

    @model_validator(mode="before")
    @classmethod
    def _no_seed(cls, given: object) -> object:
        for key in given if isinstance(given, dict) else ():
            if key in _SEEDS:
                raise ValueError(
                    f"{key!r} is refused: who knows a seed can take the noise off again; noise and draws come from the"
                    " operating system"
                )
        return given

    @field_validator("accountant", "sampling")
    @classmethod
    def _only_what_holds(cls, value: str, info: object) -> str:
        name = str(getattr(info, "field_name", ""))
        known = {"accountant": "prv", "sampling": "poisson"}[name]
        if value != known:
            why = _REFUSED[name].get(value)
            raise ValueError(f"{value!r} is refused: {why}" if why else f"{value!r} is not known; set {known!r}")
        return value
