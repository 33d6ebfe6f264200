"""Words of financial news that mean about the same, grouped by hand into concepts (`lexicon.toml`).

The classifier sees which concepts a clause holds, and which two together: "slashed its outlook" then shares features
with "lowered its guidance" though it shares no word.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "lexicon.toml"


class Lexicon:
    """Concepts by word, by the beginning of a word ("boost*"), and by two words ("steps_down")."""

    def __init__(self) -> None:
        content = tomllib.loads(FILE.read_text(encoding="utf-8"))["concepts"]
        self.names = tuple(content)
        self._exact: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        self._pairs: dict[tuple[str, str], list[int]] = {}
        self._known: dict[str, tuple[int, ...]] = {}
        for number, words in enumerate(content.values()):
            for word in dict.fromkeys(words.replace("-", "_").split()):
                if "_" in word:
                    first, second = word.replace("*", "").split("_")[:2]
                    self._pairs.setdefault((first[:4], second), []).append(number)
                elif word.endswith("*"):
                    self._stems.setdefault(word[:-1], []).append(number)
                else:
                    self._exact.setdefault(word, []).append(number)

    def of_word(self, word: str) -> tuple[int, ...]:
        """Numbers of the concepts of one lower-case word."""
        found = self._known.get(word)
        if found is None:
            several = set(self._exact.get(word, ()))
            for end in range(2, len(word) + 1):
                several.update(self._stems.get(word[:end], ()))
            found = tuple(sorted(several))
            if len(self._known) < 1 << 15:
                self._known[word] = found
        return found

    def of_words(self, words: Sequence[str]) -> list[int]:
        """Numbers of the concepts of a clause, each once, in order; words in doubt ("~declare") say nothing."""
        found: set[int] = set()
        before = ""
        for word in words:
            if word:
                found.update(self.of_word(word))
                if before:
                    found.update(self._pairs.get((before[:4], word), ()))
                before = word
        return sorted(found)


@cache
def load() -> Lexicon:
    """The lexicon that ships."""
    return Lexicon()
