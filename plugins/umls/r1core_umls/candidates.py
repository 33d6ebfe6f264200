"""Which texts cannot define an abbreviation, told by their characters alone, so that spaCy is not asked (or imported).

A necessary condition of scispaCy's detector, nothing more: in `long form (SF)` or `SF (long form)`, every letter and
digit of the short form stands in the long form in the same order, and the short form is one to three tokens of 2 to 9
characters. What passes is for the detector to decide. Nine of ten parentheses in diagnoses do not pass.
"""

from __future__ import annotations

import re

LONGEST, WORDS, INSIDE = 9, 3, 3  # characters of a short form's token; its tokens; more tokens inside: a long form

# Between ASCII letters spaCy's English tokenizer cuts in its exceptions only ("cannot", "gonna", "shouldntve"): words
# of at most 10 letters, into at most 3 parts, of which the last is one of these.
CUT_OFF = ("a", "all", "d", "ll", "m", "na", "not", "nt", "re", "s", "ta", "ve", "n't", "n\u2019t")
CUT_WORD = 10
COME_ON = ("c'mon", "c\u2019mon")  # the one exception to that: c'm + on
_PIECES = re.compile(r"[A-Za-z]+|\s+|.", re.DOTALL)


def may_define(text: str) -> bool:
    """Whether some pair of parentheses in the text may hold, or stand behind, a short form."""
    opening = [match.start() for match in re.finditer(r"\(", text)]
    closing = [match.start() for match in re.finditer(r"\)", text)]
    return any(_pair(text[:start], text[start + 1 : end]) for start in opening for end in closing if start < end)


def _pair(before: str, inside: str) -> bool:
    return _short_inside(before, inside.strip()) or _short_before(before, inside)


def _short_inside(before: str, inside: str) -> bool:
    words = inside.split()
    fits = 0 < len(words) <= WORDS and all(len(word) > 1 for word in words)
    return fits and sum(map(len, words)) <= WORDS * LONGEST and _lettered(inside) and _spelled_in(inside, before)


def _short_before(before: str, inside: str) -> bool:
    if _tokens_at_most(inside) <= INSIDE:
        return False
    before = before[:-1] if before[-1:].isspace() else before
    tails = (before[-length:] for length in range(2, min(LONGEST, len(before)) + 1))
    return any(_may_be_token(before, tail) and _lettered(tail) and _spelled_in(tail, inside) for tail in tails)


def _may_be_token(text: str, tail: str) -> bool:
    """Whether spaCy may cut a text right in front of this tail of it."""
    joint = text[len(text) - len(tail) - 1 : len(text) - len(tail) + 1]
    between_letters = len(joint) == 2 and joint.isascii() and joint.isalpha()
    return not between_letters or tail.lower() in CUT_OFF or text.lower().endswith(COME_ON)


def _tokens_at_most(text: str) -> int:
    count = 0
    for piece in _PIECES.findall(text):
        if piece.isspace():
            count += len(piece) > 1  # a single space belongs to the token before it
        else:
            count += 3 if len(piece) <= CUT_WORD and piece.lower().endswith(CUT_OFF) else 1
    return count


def _lettered(short: str) -> bool:
    return short[0].isalpha() and 2 * sum(map(str.isalpha, short)) >= len(short)


def _spelled_in(short: str, long: str) -> bool:
    """Whether the letters and digits of `short` stand in `long` in this order, whatever their case."""
    rest = iter([character.lower() for character in reversed(long)])
    wanted = [character.lower() for character in reversed(short)]
    return all(character in rest for character in wanted if character.isalnum())
