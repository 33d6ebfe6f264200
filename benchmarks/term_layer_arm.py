"""The plugin of one arm of `term_layer.py`: concepts as they were linked beforehand, and one kind of vector for each.

    off        no layer
    learned    a learned vector of each concept: the plugin umls's table
    encoder    the encoder's vector of each concept, projected
    permuted   the same vectors dealt out among the concepts at random, by the run's seed: every concept keeps a vector
               of the encoder's, so the layer can tell concepts apart as well, but whatever a vector says is of another

Linked beforehand, because it takes longer than a training, and because what is asked must not be in the dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from r1core_umls.config import UmlsConfig
from r1core_umls.encoder import WIDTH
from r1core_umls.hashing import sha256
from r1core_umls.values import KIND, LinkedConcept, decode, span_kind

from r1core.api import Annotator, Context, Example, LayerSpec, Plugin, Span, SpanKind, UserError, hookimpl

if TYPE_CHECKING:
    from torch import nn

LINKS, VECTORS = "links.json", "vectors.npz"
Arm = Literal["off", "learned", "encoder", "permuted"]
TABLE = UmlsConfig()  # width and rows of the learned table


class ArmConfig(BaseModel):
    """`folder` : of `LINKS` (text to its spans) and `VECTORS` (`ids`, `vectors`). `site` : of the layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    arm: Arm
    site: str = "embedding"


class Linked:
    """Writes the spans that were found in a text beforehand."""

    name = "term_layer_arm/linked"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def __init__(self, config: ArmConfig, seed: int) -> None:
        self._config = config
        kind = span_kind(TABLE.buckets)
        if config.arm in ("encoder", "permuted"):
            numbers = vector_of(config.folder / VECTORS, seed if config.arm == "permuted" else None)
            kind = replace(kind, width=WIDTH, feature=numbers)
        self.span_kinds: tuple[SpanKind, ...] = (kind,)

    @cached_property
    def _links(self) -> dict[str, list[tuple[int, int, LinkedConcept]]]:
        found = json.loads((self._config.folder / LINKS).read_text("utf-8"))
        return {text: [(start, end, decode(value)) for start, end, value in spans] for text, spans in found.items()}

    def __call__(self, example: Example) -> Example:
        """Return the example with the spans of its question."""
        question = example.messages[0].content
        if question not in self._links:
            raise UserError(f"{question!r} has not been linked", fix="remove the links, so that they are made again")
        return example.with_spans([Span(0, start, end, KIND, value) for start, end, value in self._links[question]])

    def fingerprint(self) -> str:
        """Hashes of both files, and the arm, which says what of them a span's numbers are."""
        return " ".join([self._config.arm, *(sha256(path).hex() for path in self.input_files())])

    def input_files(self) -> tuple[Path, ...]:
        """Both files."""
        return (self._config.folder / LINKS, self._config.folder / VECTORS)


def vector_of(path: Path, seed: int | None) -> Callable[[LinkedConcept], tuple[float, ...]]:
    """Return what gives a concept's vector, (WIDTH,); with a seed, that of a concept drawn for it, none drawn twice."""

    @lru_cache(1)
    def table() -> tuple[dict[str, int], np.ndarray]:
        with np.load(path, allow_pickle=False) as file:
            ids, vectors = file["ids"].tolist(), file["vectors"]
        if seed is not None:
            vectors = vectors[np.random.default_rng(seed).permutation(len(vectors))]
        return {name: at for at, name in enumerate(ids)}, vectors

    @lru_cache(4096)
    def numbers(concept_id: str) -> tuple[float, ...]:
        place, vectors = table()
        return tuple(vectors[place[concept_id]].tolist())

    return lambda value: numbers(value.concept_id)


class TermLayerArm(Plugin):
    """One arm."""

    config = ArmConfig

    @hookimpl
    def preprocess(self, ctx: Context) -> Sequence[Annotator]:
        """The annotator `term_layer_arm/linked`."""
        return [Linked(_config(ctx), ctx.seed)]

    @hookimpl
    def extra_layer(self, ctx: Context, model: object) -> Sequence[LayerSpec]:
        """The plugin umls's layer, at the arm's site."""
        config, seed = _config(ctx), ctx.seed
        if config.arm == "off":
            return []

        def factory(hidden_size: int) -> nn.Module:
            from r1core_umls.layer import ConceptEmbedding, ConceptProjection

            if config.arm == "learned":
                return ConceptEmbedding(hidden_size, width=TABLE.layer_width, buckets=TABLE.buckets, seed=seed)
            return ConceptProjection(hidden_size, width=WIDTH, seed=seed)

        return [LayerSpec("term_layer_arm/concepts", config.site, factory, kinds=(KIND,))]


def _config(ctx: Context) -> ArmConfig:
    assert isinstance(ctx.config, ArmConfig)
    return ctx.config
