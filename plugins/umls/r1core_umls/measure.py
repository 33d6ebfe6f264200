"""Runs a linker over annotated texts and scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from r1core_umls.scoring import Evaluation, evaluate

if TYPE_CHECKING:
    from r1core_umls.gold import GoldDocument
    from r1core_umls.knowledge import KnowledgeBase
    from r1core_umls.linker import Linker

KS = (1, 5)


def measure(linker: Linker, documents: Sequence[GoldDocument]) -> Evaluation:
    """Link the texts and compare with their gold spans; retired gold ids count as what took their place.

    Gold mentions are ranked by the dictionary and, where the linker has one, the encoder, which does not abstain there.
    """
    base, unlisted = linker.base, linker.unlisted
    answers = [[(one.start, one.end, one.value.concept_id) for one in linker.link(text.text)] for text in documents]
    ranked: list[list[list[str]]] = []
    for document in documents:
        mentions = [document.text[span.start : span.end] for span in document.spans]
        if unlisted is not None:
            ranked.append(unlisted.ranked(mentions, max(KS)))
        else:
            ranked.append([[one.id for one in base.lookup(mention)] for mention in mentions])
    found = evaluate(documents, answers, lambda one: current(base, one), ranked, KS, base.__contains__)
    return replace(found, ranked_by="dictionary" if unlisted is None else "dictionary and encoder")


def current(base: KnowledgeBase, concept_id: str) -> str:
    """Return a concept id, or the one that took its place (relation `SY`) where the release retired it."""
    same = {one.id for one in base.replacements(concept_id) if one.relation == "SY" and one.id in base}
    return same.pop() if len(same) == 1 else concept_id
