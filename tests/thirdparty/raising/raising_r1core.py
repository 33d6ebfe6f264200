"""Raises wherever the core calls it after loading."""

from __future__ import annotations

from r1core import api


class Bad:
    name = "raising/bad"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[api.SpanKind, ...] = ()

    def __call__(self, *args: object, **fields: object) -> None:
        raise KeyError("dose")

    def start(self, request: api.DecodeRequest) -> None:
        raise ZeroDivisionError("rule 7")

    def fingerprint(self) -> str:
        return "1"


class Observer(api.Callback):
    def on_step(self, step: int, metrics: object) -> None:
        raise OSError("dashboard is down")


class Raising(api.Plugin):
    @api.hookimpl
    def preprocess(self) -> list[api.Annotator]:
        return [Bad()]

    @api.hookimpl
    def reward(self) -> list[api.Reward]:
        return [Bad()]

    @api.hookimpl
    def decode_constraint(self) -> list[api.DecodeConstraint]:
        return [Bad()]

    @api.hookimpl
    def metric(self) -> list[api.Metric]:
        raise RuntimeError("no table")

    @api.hookimpl
    def callback(self) -> list[api.Callback]:
        return [Observer()]

    @api.hookimpl
    def report(self) -> list[api.ReportSection]:
        raise ValueError("empty plot")
