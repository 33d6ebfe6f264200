"""Finds the concepts that a text mentions: dictionary matching on token boundaries, longest match first.

What the text says of each of them (negated, in the family) comes from `context.py`; mentions that no name equals, where
they are asked for, from `unlisted.py`.

Not covered: disambiguation by context (an ambiguous surface gets the first of a fixed order, and keeps the rest as
`alternatives`), and names that stand in the text with words in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from r1core_umls.context import contexts
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.names import Tokens, close_bracket, tokenise
from r1core_umls.values import LinkedConcept, Method

Abbreviations = Callable[[str], Iterable["Definition"]]


@dataclass(frozen=True, slots=True)
class Definition:
    """An abbreviation that a text defines: its long form, and where the short form stands (character ranges)."""

    short: str
    long: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Characters `[start, end)` of a text, linked. `shares` : probabilities of the alternatives, if they have any."""

    start: int
    end: int
    value: LinkedConcept
    shares: tuple[float, ...] = ()

    @property
    def scored(self) -> list[tuple[str, float]]:
        """The concept and its alternatives with their probabilities, best first; 1 for what the dictionary answered."""
        others = self.shares or (self.value.probability,) * len(self.value.alternatives)
        return [(self.value.concept_id, self.value.probability), *zip(self.value.alternatives, others, strict=True)]


class OpenMentions(Protocol):
    """Links what the dictionary leaves open."""

    def links(self, text: str, known: Sequence[Link], chunks: Sequence[tuple[int, int]] | None = None) -> list[Link]:
        """Return links that do not overlap each other; each that overlaps one of `known` takes its place."""
        ...

    def ranked(self, mentions: Sequence[str], k: int) -> list[list[str]]:
        """Return the ids of up to `k` concepts of each mention, best first, without abstaining."""
        ...


class Linker:
    """Links texts against one knowledge base.

    Parameters
    ----------
    abbreviations : finds the abbreviations that a text defines, None to link names only.
    unlisted : links mentions that no name equals, None to link names only.
    only : ids of the concepts to link, None to link all.
    context : say of each concept whether it is negated, uncertain, in the past or in the family.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        abbreviations: Abbreviations | None = None,
        unlisted: OpenMentions | None = None,
        *,
        only: frozenset[str] | None = None,
        context: bool = False,
    ) -> None:
        self.base, self._only = base, only
        self._abbreviations, self.unlisted, self._context = abbreviations, unlisted, context

    def link(self, text: str, chunks: Sequence[tuple[int, int]] | None = None) -> list[Link]:
        """Return the links of a text in order of position; they never overlap.

        Where matches overlap, the one with more characters wins, then the one further left. An abbreviation that
        the text defines means what the text says, whatever else the dictionary knows under these letters.

        Parameters
        ----------
        chunks : where mentions that no name equals may stand, as characters `[start, end)`; None to look for them.
        """
        links = self._known(text)
        if self.unlisted is not None:
            found = [link for link in self.unlisted.links(text, links, chunks) if self._wanted(link.value.concept_id)]
            links = [link for link in links if all(link.end <= new.start or link.start >= new.end for new in found)]
            links = sorted(links + found, key=lambda link: link.start)
        if self._context:
            said = contexts(text, [(link.start, link.end) for link in links])
            links = [
                replace(link, value=replace(link.value, **asdict(one))) for link, one in zip(links, said, strict=True)
            ]
        return links

    def _known(self, text: str) -> list[Link]:
        matches = self._names(text)
        if self._abbreviations is not None and "(" in text:
            for definition in self._abbreviations(text):
                places = set(definition.places)
                matches = [match for match in matches if (match.start, match.end) not in places]
                matches += self._expand(definition, text)
        return _longest_first(matches)

    def _names(self, text: str) -> list[Link]:
        """Return every name in the text, overlapping ones included."""
        tokens = tokenise(text)
        find, longest = self.base.index.find, self.base.index.longest
        norms, gaps = tokens.norms, tokens.gaps
        matches: list[Link] = []
        for first, norm in enumerate(norms):
            limit = longest(norm)
            key = norm
            for last in range(first + 1, min(first + limit, len(norms)) + 1):
                if last > first + 1:
                    key += gaps[last - 1] + norms[last - 1]
                places = find(key)
                if places:
                    matches += self._match(text, tokens, first, last, key, places)
        return matches

    def _match(self, text: str, tokens: Tokens, first: int, last: int, key: str, places: range) -> list[Link]:
        start = tokens.starts[first]
        end = close_bracket(text, start, tokens.ends[last - 1])
        surface = text[start:end]
        index = self.base.index
        selected = index.select(places, key, surface)
        named = [(self.base.concepts[index.concept(name)], name) for name in selected]
        named = [(concept, name) for concept, name in named if self._wanted(concept.id)]
        if not named:
            return []
        concepts = [concept for concept, _ in named]
        method: Method = "exact" if index.surface(named[0][1]) == surface else "normalised"
        alternatives = tuple(concept.id for concept in concepts[1:])
        best = concepts[0]
        return [Link(start, end, LinkedConcept(best.id, best.name, best.cuis, surface, method, alternatives))]

    def _wanted(self, concept_id: str) -> bool:
        return self._only is None or concept_id in self._only

    def _expand(self, definition: Definition, text: str) -> list[Link]:
        concepts = [concept for concept in self.base.lookup(definition.long) if self._wanted(concept.id)]
        if not concepts:
            return []
        best, alternatives = concepts[0], tuple(concept.id for concept in concepts[1:])
        return [
            Link(
                start,
                end,
                LinkedConcept(best.id, best.name, best.cuis, text[start:end], "abbreviation", alternatives),
            )
            for start, end in definition.places
        ]


def _longest_first(matches: list[Link]) -> list[Link]:
    kept: list[Link] = []
    if len(matches) < 2:
        return matches
    taken: set[int] = set()
    for match in sorted(matches, key=lambda match: (match.start - match.end, match.start)):
        # Longer matches are placed already, so an overlap shows at one of the two ends.
        if match.start not in taken and match.end - 1 not in taken:
            taken.update(range(match.start, match.end))
            kept.append(match)
    return sorted(kept, key=lambda match: match.start)
