"""Numbers in words: "two million", "twenty-five", "three hundred and five thousand", "a dozen".

A single "one", "a" and "an" are articles as often as numbers and are not read; nor are ordinals, "half", "quarter",
"twice", "double" and "tens of millions".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from r1core_numeric.lexicon import DOZEN, ONES, TENS, UNITS, WORD_SCALES

_WORDS = {**UNITS, **ONES, **TENS}
_ANY = "|".join(sorted([*_WORDS, *WORD_SCALES, "dozen", "and"], key=len, reverse=True))
_PHRASE = re.compile(rf"\b(?:{_ANY})\b(?:[ \n\u00a0-]+(?:{_ANY})\b)*")
_GAP = re.compile(r"[^ \n\u00a0-]+")


def number_words(folded: str) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and value of each number in words."""
    for found in _PHRASE.finditer(folded):
        words = [(found.start() + w.start(), found.start() + w.end(), w.group()) for w in _GAP.finditer(found.group())]
        at = 0
        while at < len(words):
            length, value = _longest(tuple(word for _, _, word in words[at:]))
            if length and not _article(words[at : at + length]):
                yield words[at][0], words[at + length - 1][1], value
            at += max(length, 1)


def _article(words: list[tuple[int, int, str]]) -> bool:
    return len(words) == 1 and words[0][2] in ONES


def _longest(words: tuple[str, ...]) -> tuple[int, int]:
    """The number of words of the longest number at the start, and its value; (0, 0) where there is none."""
    total = group = 0
    length, last, ceiling = 0, "", 10**15
    for at, word in enumerate(words):
        if word == "and":
            if last not in WORD_SCALES:
                break
            continue
        if word in WORD_SCALES or word == "dozen":
            factor = DOZEN if word == "dozen" else 10 ** WORD_SCALES[word]
            if not last or (factor >= 1000 and factor >= ceiling):
                break
            if factor < 1000:
                group *= factor
            else:
                total, group, ceiling = total + group * factor, 0, factor
        elif _follows(last, word):
            group += _WORDS[word]
        else:
            break
        length, last = at + 1, word
    return length, total + group


def _follows(last: str, word: str) -> bool:
    """Whether a word of a number can stand behind another."""
    if not last:
        return True
    if last in TENS:
        return (word in UNITS and 0 < UNITS[word] < 10) or word == "one"
    return last in WORD_SCALES and word not in ("a", "an", "zero")
