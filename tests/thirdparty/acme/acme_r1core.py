"""A plugin as a third party writes it: it imports `r1core.api` and nothing else of r1core."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from r1core import api

DRUG = api.SpanKind("acme/drug", encode=str, decode=str)


class Dose(BaseModel):
    unit: str = "mg"


class Config(BaseModel):
    drugs: list[str] = Field(default_factory=lambda: ["acmezumab"])
    lexicon: Path | None = None
    dose: Dose = Dose()


class Drugs:
    name = "acme/drugs"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds = (DRUG,)

    def __init__(self, drugs: Sequence[str]) -> None:
        self.drugs = tuple(drugs)

    def __call__(self, example: api.Example) -> api.Example:
        spans = []
        for part, message in enumerate(example.messages):
            for drug in self.drugs:
                start = message.content.find(drug)
                if start >= 0:
                    spans.append(api.Span(part, start, start + len(drug), DRUG.name, drug))
        return example.with_spans(spans)

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.drugs).encode()).hexdigest()


class Acme(api.Plugin):
    config = Config

    @api.hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        assert isinstance(ctx.config, Config)
        more = ctx.config.lexicon.read_text(encoding="utf-8").split() if ctx.config.lexicon else []
        return [Drugs([*ctx.config.drugs, *more])]
