"""The triggers of the taxonomy as one matcher: a trie over lower-case words, so that hits end at word boundaries.

A trigger in the scope of a cue of negation or hypothesis (see `tokens.py`; "did not", "denies", "if", "may") is kept
with `weight` `LOWERED` in place of 1. A cue that is part of the trigger itself ("should no longer be relied upon")
does not lower it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1core_events.taxonomy import Taxonomy
from r1core_events.tokens import Tokens, words

LOWERED = 0.0
"""What a trigger in the scope of a cue counts: nothing, since a cue takes back what follows it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A trigger that was found.

    Parameters
    ----------
    label : index of the type in the taxonomy.
    first, last : indices of its first and last token.
    """

    label: int
    first: int
    last: int
    weight: float


@dataclass(slots=True)
class _Node:
    following: dict[str, _Node]
    labels: list[int]


class Rules:
    """All triggers; `find` takes time linear in the tokens, times the length of the longest trigger."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._root = _Node({}, [])
        for label, kind in enumerate(taxonomy.types):
            for phrase in kind.triggers:
                node = self._root
                for word in words(phrase):
                    node = node.following.setdefault(word, _Node({}, []))
                if node is not self._root and label not in node.labels:
                    node.labels.append(label)

    def find(self, tokens: Tokens) -> Sequence[Hit]:
        """Every hit, overlapping ones too, in order of the first token."""
        hits: list[Hit] = []
        lower, start = tokens.lower, self._root.following
        for first, word in enumerate(lower):
            node = start.get(word)
            last = first
            while node is not None:
                for label in node.labels:
                    hits.append(Hit(label, first, last, LOWERED if tokens.doubt[first] else 1.0))
                last += 1
                node = node.following.get(lower[last]) if last < len(lower) else None
        return hits
