"""The plugin: events in a prompt as spans, and generated sentences as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from r1core import api
from r1core.api import hookimpl
from r1core_events.config import Config
from r1core_events.dataset import GeneratedEvents, taxonomy_files
from r1core_events.values import Event

if TYPE_CHECKING:
    from r1core_events.tagger import Tagger

KIND = "events/event"
EVENT = api.SpanKind(KIND, Event.as_json, Event.from_json, overlap="all")


class EventAnnotator:
    """Writes a span for every event that a message of the prompt reports; the value is the `Event`."""

    name = "events/tagger"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[api.SpanKind, ...] = (EVENT,)

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def tagger(self) -> Tagger:
        """Loaded when first used. Raises UserError for a broken taxonomy or model."""
        from r1core_events.tagger import Tagger

        return Tagger.load(self._config.taxonomy, self._config.model, threshold=self._config.threshold)

    def __call__(self, example: api.Example) -> api.Example:
        """Return the example with its events as spans."""
        found = [
            api.Span(part, event.start, event.end, KIND, event)
            for part, message in enumerate(example.messages)
            if message.role != "assistant"
            for event in self.tagger.tag(message.content)
        ]
        return replace(example, spans=tuple(span for span in example.spans if span.kind != KIND)).with_spans(found)

    def fingerprint(self) -> str:
        """Hash of the taxonomy, the weights, the lexicon and the threshold."""
        digest = hashlib.sha256(repr(self._config.threshold).encode())
        for file in self._files():
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def input_files(self) -> Sequence[Path]:
        """What the settings name, for the manifest."""
        own = [file for folder in self._config.taxonomy for file in sorted(folder.glob("*.toml"))]
        return own if self._config.model is None else [*own, self._config.model]

    def _files(self) -> list[Path]:
        from r1core_events import lexicon, model

        return [*taxonomy_files(self._config), self._config.model or model.OWN, lexicon.FILE]


class EventsPlugin(api.Plugin):
    """Entry point of the distribution r1core-events."""

    config = Config

    @hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        """Return the annotator of events."""
        return [EventAnnotator(_config(ctx))]

    @hookimpl
    def dataset_source(self, ctx: api.Context) -> Sequence[api.DatasetSource]:
        """Return the generated data set."""
        return [GeneratedEvents(_config(ctx))]


def _config(ctx: api.Context) -> Config:
    return ctx.config if isinstance(ctx.config, Config) else Config()
