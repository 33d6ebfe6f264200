"""`facts.risk` of a request: positions held, a limit, and what the instruments may come to; validated, never guessed.

    {"risk": {"measure": "es", "level": 0.975, "limit": 10000, "currency": "EUR", "short": false,
              "instruments": [{"id": "ACME", "held": 100}, {"id": "GLOBEX"}],
              "scenarios": [[-1.25, 0.40], [0.30, -0.10], ...]}}

A scenario is the profit and loss of one unit of each instrument in `currency`, over the horizon of the limit (losses
negative). In their stead `covariance` (and `mean`, zero if left out) of one unit's profit and loss gives the normal
model. `RiskFacts.model_json_schema()` is the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from r1core import api

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
_NAME = r"^([A-Z]|[0-9][0-9.\-]*[A-Z])[A-Z0-9.\-]*$"
Identifier = Annotated[str, StringConstraints(pattern=_NAME, max_length=16)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instrument(_Strict):
    """One instrument: capital letters, digits, dots and dashes, a letter among them; how many units are held."""

    id: Identifier
    held: Finite = 0.0


class RiskFacts(_Strict):
    """The portfolio of a request and its limit, a loss >= 0 in `currency`; `short` allows positions below zero."""

    measure: Literal["es", "var"] = "es"
    level: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.975
    limit: Annotated[float, Field(ge=0.0, le=1e15, allow_inf_nan=False)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    short: bool = False
    instruments: Annotated[tuple[Instrument, ...], Field(min_length=1, max_length=500)]
    scenarios: Annotated[tuple[tuple[Finite, ...], ...], Field(min_length=1, max_length=50_000)] | None = None
    covariance: tuple[tuple[Finite, ...], ...] | None = None
    mean: tuple[Finite, ...] | None = None

    @model_validator(mode="after")
    def _fits(self) -> RiskFacts:
        names = [one.id for one in self.instruments]
        if len(set(names)) < len(names):
            raise ValueError("an instrument is listed twice")
        if (self.scenarios is None) == (self.covariance is None):
            raise ValueError("give either `scenarios` or `covariance`")
        if self.mean is not None and (self.covariance is None or len(self.mean) != len(names)):
            raise ValueError("`mean` goes with `covariance`, one number for each instrument")
        table = self.scenarios if self.scenarios is not None else self.covariance or ()
        if any(len(row) != len(names) for row in table):
            raise ValueError(f"each row needs one number for each of the {len(names)} instruments")
        if self.covariance is not None and len(self.covariance) != len(names):
            raise ValueError("`covariance` needs one row for each instrument")
        return self

    @property
    def measured(self) -> str:
        """What is limited, as people write it: "ES 97.5 %"."""
        return f"{'ES' if self.measure == 'es' else 'VaR'} {100 * self.level:g} %"

    def money(self, amount: float) -> str:
        """An amount in the currency, to the cent."""
        return f"{amount:.2f} {self.currency}"


def risk_facts(example: api.Example) -> RiskFacts | None:
    """What a request's facts say of risk; None where they say nothing.

    Raises
    ------
    api.UserError : naming the key, where they say something that cannot be read.
    """
    said = (example.facts or {}).get("risk")
    if said is None:
        return None
    if not isinstance(said, Mapping):
        raise api.UserError(
            f"example {example.id}: facts.risk is {type(said).__name__}, expected an object", fix="see LAYER.md"
        )
    known = set(RiskFacts.model_fields)
    if said.get("limit") is None or (said.get("scenarios") is None and said.get("covariance") is None):
        if unknown := set(said) - known:
            raise api.UserError(
                f"example {example.id}: facts.risk has the unknown key {min(unknown)!r}", fix="see LAYER.md"
            )
        return None
    try:
        return RiskFacts.model_validate(_without_none(said))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in ("facts.risk", *first["loc"]))
        raise api.UserError(f"example {example.id}: {at}: {first['msg']}", fix="see LAYER.md for the form") from error


def _without_none(said: Mapping[str, api.JSON]) -> dict[str, api.JSON]:
    return {key: value for key, value in said.items() if value is not None}
