"""Mentions that no name equals: chunks of a text, answered by the encoder or not at all.

A chunk that the dictionary has linked nothing in is answered where the encoder is sure enough. One that holds a link is
answered only by a kind of the concept linked ("childhood cataract" around "cataract"); the longer mention then takes
the link's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r1core_umls.features import words_of
from r1core_umls.linker import Link
from r1core_umls.mentions import Chunker, Stretch, light_chunks, shortened
from r1core_umls.values import LinkedConcept

if TYPE_CHECKING:
    from r1core_umls.cover import Cover
    from r1core_umls.knowledge import KnowledgeBase
    from r1core_umls.normaliser import Candidate, Normaliser

ALTERNATIVES = 4  # further concepts that a mention keeps
MIN_LETTERS = 3
MIN_WORDS = 2
MIN_COVER = 0.9


@dataclass(frozen=True)
class Unlisted:
    """Finds and links mentions that no name equals.

    Parameters
    ----------
    chunks : where mentions may stand.
    min_probability : the encoder abstains below it, in [0, 1].
    """

    normaliser: Normaliser
    cover: Cover
    min_probability: float
    min_cover: float = MIN_COVER
    chunks: Chunker = light_chunks

    def links(self, text: str, known: Sequence[Link], chunks: Sequence[Stretch] | None = None) -> list[Link]:
        """Return links for what the dictionary left open; some of them stand in place of links in `known`.

        Parameters
        ----------
        known : the dictionary's links of this text.
        chunks : where mentions may stand, where that is known already.
        """
        base = self.normaliser.base
        open_: list[tuple[Stretch, Link | None]] = []
        for start, end in shortened(self.chunks(text) if chunks is None else chunks, text):
            inside = [link for link in known if link.start < end and start < link.end]
            free = sum(map(str.isalpha, text[start:end])) >= MIN_LETTERS
            if free and not inside:
                open_.append(((start, end), None))
            elif free and len(inside) == 1 and _within(inside[0], start, end):
                open_.append(((start, end), inside[0]))
        found: list[Link] = []
        mentions = [text[start:end] for (start, end), _ in open_]
        for ((start, end), link), candidates in zip(open_, self.answers(mentions), strict=True):
            if not candidates:
                continue
            best = base.concepts[candidates[0].position]
            if link is None or link.value.concept_id in base.ancestors(best):
                found.append(_link(base, (start, end), text, candidates))
        return _best_first(found)

    def ranked(self, mentions: Sequence[str], k: int) -> list[list[str]]:
        """Return the ids of up to `k` concepts of each mention, best first, without abstaining."""
        concepts = self.normaliser.base.concepts
        return [[concepts[one.position].id for one in found] for found in self.normaliser.candidates(mentions, k)]

    def answers(self, mentions: Sequence[str]) -> list[list[Candidate]]:
        """Return the concepts of each mention, best first; [] where the encoder abstains."""
        found = self.normaliser.candidates(mentions, ALTERNATIVES + 1)
        return [each if self._sure(mention, each) else [] for mention, each in zip(mentions, found, strict=True)]

    def _sure(self, mention: str, candidates: Sequence[Candidate]) -> bool:
        # What the dictionary knows and the linker left alone was left alone with reason: the text defines it otherwise.
        if not candidates or candidates[0].method == "dictionary" or len(words_of(mention)) < MIN_WORDS:
            return False
        best = candidates[0]
        return best.probability >= self.min_probability and self.cover.of(mention, best.position) >= self.min_cover


def _within(link: Link, start: int, end: int) -> bool:
    return start <= link.start and link.end <= end and (start, end) != (link.start, link.end)


def _link(base: KnowledgeBase, place: Stretch, text: str, candidates: Sequence[Candidate]) -> Link:
    start, end = place
    best, *others = (base.concepts[one.position] for one in candidates)
    value = LinkedConcept(
        best.id, best.name, best.cuis, text[start:end], "encoder", tuple(one.id for one in others),
        round(candidates[0].probability, 4),
    )  # fmt: skip
    return Link(start, end, value, tuple(round(one.probability, 4) for one in candidates[1:]))


def _best_first(links: list[Link]) -> list[Link]:
    """Of links that overlap, keep the more probable one, then the longer, then the one further left."""
    kept: list[Link] = []
    for link in sorted(links, key=lambda one: (-one.value.probability, one.start - one.end, one.start)):
        if all(link.end <= other.start or link.start >= other.end for other in kept):
            kept.append(link)
    return kept
