"""A linker as a configuration asks for it: the base, abbreviations, the encoder, where it looks for mentions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import UserError
from r1core_umls.abbreviations import find_definitions
from r1core_umls.cache import cache_root, load_or_build
from r1core_umls.concept_vectors import ConceptVectors
from r1core_umls.cover import Cover
from r1core_umls.linker import Linker
from r1core_umls.mentions import light_chunks, spacy_chunks
from r1core_umls.normaliser import Normaliser
from r1core_umls.trained import folder_of, load_known
from r1core_umls.unlisted import Unlisted

if TYPE_CHECKING:
    from r1core_umls.concepts import Progress
    from r1core_umls.config import UmlsConfig
    from r1core_umls.encoder import Encoder
    from r1core_umls.knowledge import KnowledgeBase


def linker_of(config: UmlsConfig, progress: Progress | None = None) -> Linker:
    """Return the linker of a configuration; the base is built where it is not yet, the encoder is never trained.

    Raises
    ------
    UserError : a file is missing, a concept of `under` is unknown, the encoder is not trained, or there is no such
        spaCy pipeline.
    """
    base = load_or_build(config.open(), progress)
    unlisted = None
    if config.encoder:
        chunks = light_chunks if config.pipeline is None else spacy_chunks(config.pipeline)
        fitted = load_known(base, train_command(config))
        cover = Cover(fitted.encoder, base)
        unlisted = Unlisted(Normaliser(base, fitted, exact=config.exact), cover, config.min_probability, chunks=chunks)
    abbreviations = find_definitions if config.abbreviations else None
    return Linker(base, abbreviations, unlisted, only=concepts_under(base, config.under), context=config.context)


def concepts_under(base: KnowledgeBase, roots: tuple[str, ...]) -> frozenset[str] | None:
    """Return the ids of these concepts and of everything below them; None where there are no roots.

    Raises
    ------
    UserError : the base does not hold one of them.
    """
    for root in roots:
        if root not in base:
            raise UserError(f"under: {root} is not in {base.report.source}", fix="name a concept of this base")
    return frozenset(one for root in roots for one in (root, *base.descendants(root))) if roots else None


def train_command(config: UmlsConfig) -> str:
    """Return the command that trains the encoder of this configuration's base."""
    words = ["r1core", "umls", "train"]
    place = config.file or config.directory
    words += [] if place is None else [str(place)]
    for option, values in (
        ("--language", config.languages if config.languages != ("ENG",) else ()),
        ("--vocabulary", config.vocabularies),
        ("--semantic-type", config.semantic_types),
    ):
        words += [word for value in values for word in (option, value)]
    words += ["--suppressed"] * config.suppressed + ["--broader"] * config.broader
    return shlex.join(words)


def concept_vectors(config: UmlsConfig) -> ConceptVectors:
    """Return the vectors of a configuration's concepts; base and encoder are loaded when the first is asked for."""

    def load() -> tuple[KnowledgeBase, Encoder]:
        base = load_or_build(config.open())
        return base, load_known(base, train_command(config)).encoder

    return ConceptVectors(load)


def encoder_missing(config: UmlsConfig) -> bool:
    """Whether the recipe asks for an encoder that is not trained. Builds nothing: a base not built has none."""
    source = config.open()
    if not config.needs_encoder:
        return False
    return not (cache_root() / source.fingerprint()).is_dir() or not folder_of(load_or_build(source)).is_dir()


def encoder_note(config: UmlsConfig) -> Path:
    """Return the file that states what was trained, with the sha256 of each part."""
    return folder_of(load_or_build(config.open())) / "meta.json"
