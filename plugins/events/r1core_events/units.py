"""A text into what is scored at a time: the clauses of each sentence, with the sentence that they stand in.

A clause ends at a semicolon, and at a comma with "and", "while", "whereas", "as" or "but" where at least `LEAST`
words stand on both sides. Types of one clause compete, so that the likelier one is found as a rule; two events in
clauses of their own do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from r1core_events.sentences import sentences

LEAST = 4
_CLAUSE = re.compile(r";\s+(?:and\s+)?|,\s+(?:and|while|whereas|as|but)\s+")


@dataclass(frozen=True, slots=True)
class Unit:
    """A clause `[start, end)` in the sentence `[sentence_start, sentence_end)`."""

    start: int
    end: int
    sentence_start: int
    sentence_end: int


def units(text: str) -> Iterator[Unit]:
    """Yield the clauses of a text, in order."""
    for begin, end in sentences(text):
        for first, last in clauses(text, begin, end):
            yield Unit(first, last, begin, end)


def clauses(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The clauses of one sentence."""
    found, begin = [], start
    for match in _CLAUSE.finditer(text, start, end):
        sides = text[begin : match.start()], text[match.end() : end]
        if all(len(side.split(None, LEAST)) >= LEAST for side in sides):
            found.append((begin, match.start()))
            begin = match.end()
    found.append((begin, end))
    return found
