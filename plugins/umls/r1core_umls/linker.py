"""Finds the concepts that a text mentions: dictionary matching on token boundaries, longest match first.

Not covered: disambiguation by context (an ambiguous surface gets the first of a fixed order, and keeps the rest as
`alternatives`), negation, and names that stand in the text with words in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    """Characters `[start, end)` of a text, linked."""

    start: int
    end: int
    value: LinkedConcept


class Linker:
    """Links texts against one knowledge base.

    Parameters
    ----------
    abbreviations : finds the abbreviations that a text defines, None to link names only.
    """

    def __init__(self, base: KnowledgeBase, abbreviations: Abbreviations | None = None) -> None:
        self.base = base
        self._abbreviations = abbreviations

    def link(self, text: str) -> list[Link]:
        """Return the links of a text in order of position; they never overlap.

        Where matches overlap, the one with more characters wins, then the one further left. An abbreviation that
        the text defines means what the text says, whatever else the dictionary knows under these letters.
        """
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
        if not selected:
            return []
        concepts = [self.base.concepts[index.concept(name)] for name in selected]
        method: Method = "exact" if index.surface(selected[0]) == surface else "normalised"
        alternatives = tuple(concept.id for concept in concepts[1:])
        best = concepts[0]
        return [Link(start, end, LinkedConcept(best.id, best.name, best.cuis, surface, method, alternatives))]

    def _expand(self, definition: Definition, text: str) -> list[Link]:
        concepts = self.base.lookup(definition.long)
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
