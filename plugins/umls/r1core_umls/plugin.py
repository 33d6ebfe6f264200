"""The plugin `umls`: the annotator `umls/link` and the extra layer `umls/concepts`. Imports neither torch nor spaCy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import (
    Annotator,
    Context,
    Example,
    LayerSpec,
    Plan,
    Plugin,
    Problem,
    ReportSection,
    RunView,
    Span,
    SpanKind,
    Table,
    UserError,
    hookimpl,
)
from r1core_umls.assembly import concept_vectors, encoder_missing, encoder_note, linker_of, train_command
from r1core_umls.config import UmlsConfig
from r1core_umls.encoder import WIDTH
from r1core_umls.hashing import sha256
from r1core_umls.mentions import pipeline_version
from r1core_umls.values import KIND, span_kind

if TYPE_CHECKING:
    from torch import nn

    from r1core_umls.linker import Linker

__all__ = ["LinkAnnotator", "UmlsConfig", "UmlsPlugin"]


class LinkAnnotator:
    """Writes a `umls/concept` span for every concept that a message mentions. Loads its knowledge when first called."""

    name = "umls/link"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def __init__(self, config: UmlsConfig) -> None:
        self._config = config
        self._source = config.open()
        kind = span_kind(config.buckets) if config.vectors == "learned" else concept_vectors(config).span_kind()
        self.span_kinds: tuple[SpanKind, ...] = (kind,)

    @cached_property
    def linker(self) -> Linker:
        """The linker, loaded from the cache or built."""
        return linker_of(self._config)

    @cached_property
    def _fingerprint(self) -> str:
        config, terms = self._config, self._source.terms()
        parts = [self._source.fingerprint(), f"release={terms.release}"]
        parts += [f"licence={terms.licence}"] * bool(terms.licence)
        parts += [f"under={','.join(config.under)}"] * bool(config.under) + [f"context={config.context}"]
        if config.abbreviations:
            parts += [f"{package}=={version(package)}" for package in ("scispacy", "spacy")]
        if config.needs_encoder:
            if encoder_missing(config):
                raise UserError(
                    "[plugins.umls] asks for the encoder, and it is not trained yet",
                    fix=f"{train_command(config)} (minutes)",
                )
            parts.append(f"encoder={sha256(encoder_note(config)).hex()} vectors={config.vectors}")
        if config.encoder:
            parts.append(f"min_probability={config.min_probability}")
        if config.pipeline is not None:
            parts.append(f"pipeline={config.pipeline}=={pipeline_version(config.pipeline)}")
        return " ".join(parts)

    def __call__(self, example: Example) -> Example:
        """Return the example with its `umls/concept` spans, replacing those it may carry from an earlier text."""
        spans = [
            Span(part, link.start, link.end, KIND, link.value)
            for part, message in enumerate(example.messages)
            for link in self.linker.link(message.content)
        ]
        others = tuple(span for span in example.spans if span.kind != KIND)
        return replace(example, spans=others).with_spans(spans)

    def fingerprint(self) -> str:
        """Source bytes, filters, release, licence, and what abbreviations, the encoder and a pipeline depend on."""
        return self._fingerprint

    def input_files(self) -> tuple[Path, ...]:
        """The files of the knowledge base and what states the trained encoder, for the manifest."""
        return (*self._source.paths(), *((encoder_note(self._config),) if self._config.needs_encoder else ()))


class UmlsPlugin(Plugin):
    """Concept linking and concept embeddings."""

    config = UmlsConfig

    @hookimpl
    def preprocess(self, ctx: Context) -> Sequence[Annotator]:
        """The annotator `umls/link`. Raises UserError where a source file is missing."""
        annotator = LinkAnnotator(_config(ctx))
        annotator.fingerprint()
        return [annotator]

    @hookimpl
    def extra_layer(self, ctx: Context, model: object) -> Sequence[LayerSpec]:
        """The layer `umls/concepts` at the recipe's site, unless `layer = false`."""
        config, seed = _config(ctx), ctx.seed
        if not config.layer:
            return []

        def factory(hidden_size: int) -> nn.Module:
            from r1core_umls.layer import ConceptEmbedding, ConceptProjection

            if config.vectors == "encoder":
                return ConceptProjection(hidden_size, width=WIDTH, seed=seed)
            return ConceptEmbedding(hidden_size, width=config.layer_width, buckets=config.buckets, seed=seed)

        return [LayerSpec("umls/concepts", config.site, factory, kinds=(KIND,))]

    @hookimpl
    def validate(self, ctx: Context, plan: Plan) -> Sequence[Problem]:
        """Reports missing source files, an encoder that is not trained, and a licence that a trained layer carries."""
        config, found = _config(ctx), []

        def place(key: str) -> str:
            return plan.origins.get(f"plugins.umls.{key}", f"plugins.umls.{key}")

        try:
            source = config.open()
            source.size()
            licence = source.terms().licence
            if encoder_missing(config):
                fix = f"{train_command(config)} (some minutes, once)"
                found.append(
                    Problem(
                        place("encoder" if config.encoder else "vectors"), "no trained encoder of this base", "one", fix
                    )
                )
        except UserError as error:
            return [Problem(place("directory"), str(error), "the files of the knowledge base", error.fix)]
        if licence and config.layer:
            where, told = place("layer"), "a trained layer of concepts of a licensed base"
            fix = "ask whoever licensed it before the run or its adapter leaves the house, or set layer = false"
            found.append(Problem(where, told, f"its terms kept: {licence}", fix, severity="warning"))
        return found

    @hookimpl
    def report(self, ctx: Context, run: RunView) -> Sequence[ReportSection]:
        """Which knowledge base the concepts come from, and the licence that whatever was made from it carries."""
        config = _config(ctx)
        source = config.open()
        terms = source.terms()
        rows = [("source", Path(source.name()).name), ("release", terms.release), ("licence", terms.licence or "none")]
        if config.vectors == "encoder" and config.layer:
            rows.append(("vectors", "the encoder's, of each concept's names"))
        if config.encoder:
            rows.append(("encoder", f"answers at a probability of {config.min_probability} or more"))
        exported = "the extra layer `umls/concepts` of the adapter, " if config.layer else ""
        text = f"Licensed names went into {exported}the spans in `data/` and this report." if terms.licence else ""
        return [ReportSection("Concepts", text, (Table(("what", "value"), tuple(rows)),), private=False)]


def _config(ctx: Context) -> UmlsConfig:
    if ctx.config is None:
        return UmlsConfig()
    if not isinstance(ctx.config, UmlsConfig):
        raise TypeError(f"expected UmlsConfig, found {type(ctx.config).__name__}")
    return ctx.config
