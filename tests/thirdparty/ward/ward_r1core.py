"""A whole plugin of a third party: spans, a layer over them, a metric, a gate, an observer, a report section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from r1core import api

if TYPE_CHECKING:
    import torch

COMPLAINT = api.SpanKind("ward/complaint", encode=str, decode=str, width=1, feature=lambda value: (float(len(value)),))


class Config(BaseModel):
    complaints: list[str] = ["chest pain", "cough", "rash"]


class Complaints:
    name = "ward/complaints"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds = (COMPLAINT,)

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def __call__(self, example: api.Example) -> api.Example:
        return example.with_spans(
            api.Span(part, start, start + len(word), COMPLAINT.name, word)
            for part, message in enumerate(example.messages)
            if message.role == "user"
            for word in self.words
            if (start := message.content.find(word)) >= 0
        )

    def fingerprint(self) -> str:
        return "\n".join(self.words)


class Words:
    name = "ward/words"
    higher_is_better = False

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[api.Example]) -> float:
        return sum(len(text.split()) for text in predictions) / len(predictions)


class Watch(api.Callback):
    name = "ward/watch"

    def __init__(self, run_dir: Path | None) -> None:
        self.run_dir = run_dir

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.run_dir is not None:  # beside the run, which holds only what its stages recorded
            with self.run_dir.with_suffix(".watch").open("a", encoding="utf-8") as stream:
                stream.write(f"{step}\n")


class Ward(api.Plugin):
    config = Config

    @api.hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        assert isinstance(ctx.config, Config)
        return [Complaints(ctx.config.complaints)]

    @api.hookimpl
    def extra_layer(self, ctx: api.Context) -> Sequence[api.LayerSpec]:
        def factory(hidden_size: int) -> torch.nn.Module:
            from ward_layer import Complaint

            return Complaint(hidden_size, ctx.seed)

        return [api.LayerSpec("ward/complaint", "embedding", factory, (COMPLAINT.name,))]

    @api.hookimpl
    def metric(self) -> Sequence[api.Metric]:
        return [Words()]

    @api.hookimpl
    def callback(self, ctx: api.Context) -> Sequence[api.Callback]:
        return [Watch(ctx.run_dir)]

    @api.hookimpl
    def report(self, run: api.RunView) -> Sequence[api.ReportSection]:
        return [api.ReportSection("Ward round", f"{len(run.summary)} figures were seen", private=False)]
