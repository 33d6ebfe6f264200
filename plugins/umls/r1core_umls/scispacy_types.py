"""To and from scispaCy's `Entity` and `KnowledgeBase`. scispaCy is imported when a function is called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from r1core_umls.concepts import Concept, Scope, Synonym
from r1core_umls.knowledge import KnowledgeBase

if TYPE_CHECKING:
    from scispacy.linking_utils import Entity
    from scispacy.linking_utils import KnowledgeBase as ScispacyBase

_CUI = re.compile(r"C\d{7}")


def to_entity(concept: Concept, scopes: tuple[Scope, ...] = ("EXACT",)) -> Entity:
    """Return a concept as scispaCy's `Entity`: synonyms of these scopes are its aliases, each once."""
    from scispacy.linking_utils import Entity

    aliases = dict.fromkeys(synonym.text for synonym in concept.synonyms if synonym.scope in scopes)
    return Entity(concept.id, concept.name, list(aliases), list(concept.semantic_types), concept.definition or None)


def to_scispacy(base: KnowledgeBase, scopes: tuple[Scope, ...] = ("EXACT",)) -> ScispacyBase:
    """Return a base as scispaCy's `KnowledgeBase`, which holds every concept in memory."""
    from scispacy.linking_utils import KnowledgeBase as ScispacyBase

    return ScispacyBase(to_entity(concept, scopes) for concept in base.concepts)


def from_scispacy(base: ScispacyBase) -> KnowledgeBase:
    """Index scispaCy's `KnowledgeBase` in memory; its aliases become exact synonyms."""
    return KnowledgeBase.of(_concepts(base), name="scispacy")


def _concepts(base: ScispacyBase) -> Iterator[Concept]:
    for identifier in sorted(base.cui_to_entity):
        entity = base.cui_to_entity[identifier]
        aliases = dict.fromkeys(alias for alias in entity.aliases if alias != entity.canonical_name)
        yield Concept(
            identifier,
            entity.canonical_name,
            tuple(map(Synonym, aliases)),
            (identifier,) if _CUI.fullmatch(identifier) else (),
            tuple(sorted(entity.types)),
            entity.definition or "",
        )
