"""The hooks of advice alone, through the conformance kit; imports nothing heavy, since the kit imports it afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel
from r1core_var import advice
from r1core_var.advice_config import AdviceConfig

from r1core import api

INSTRUMENTS = [{"id": "ACME"}, {"id": "GLOBEX", "held": 10}]
RISK = {"limit": 9, "currency": "EUR", "instruments": INSTRUMENTS, "scenarios": [[-1.0, 0.5], [0.5, -0.5]]}


class Section(BaseModel):
    advice: AdviceConfig | None = None


class Advice(api.Plugin):
    """What `plugin.py` does with these hooks."""

    config = Section

    @api.hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        return advice.annotators(ctx)

    @api.hookimpl
    def decode_constraint(self, ctx: api.Context) -> Sequence[api.DecodeConstraint]:
        return advice.constraints(ctx)

    @api.hookimpl
    def extra_layer(self, ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
        return advice.layers(ctx, model)


def test_advice_conforms(r1core_check: Callable[..., None]) -> None:
    asked = [
        api.Example(
            f"case-{limit}", (api.Message("user", "ACME or GLOBEX?"),), "t", facts={"risk": {**RISK, "limit": limit}}
        )
        for limit in (9, 30)
    ]
    section = {"advice": {"mode": "scale", "layer": True, "rationale": True}}
    r1core_check(Advice, name="var", config=section, examples=asked)
