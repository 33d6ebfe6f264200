"""What each character stands for when numbers are looked for: one symbol a character, so that offsets stay.

The reader and the decode constraint share this and nothing else. Digits of every script are digits, fullwidth forms are
what they are forms of, every hyphen and minus that hugs a number is `-`. Look-alike letters of other scripts are not
folded: `mіllion` with a Cyrillic letter is no scale here.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

INVISIBLE = "\u200b"  # stands for whatever is not seen: zero width, direction marks, soft hyphens
GROUP_SPACE = "\u00a0"  # stands for the spaces that typographers set between groups of digits
NUMERIC = "\u2150"  # stands for a character that is a number by itself and no digit: fractions, numerals of Chinese
DASH = "\u2013"
LETTER = "\u00e6"  # stands for any letter outside of a-z, and for marks on letters
NEUTRAL = "\u2022"  # stands for punctuation and symbols that say nothing about numbers
CONTROL = "\x00"

_MINUS = "\u2010\u2011\u2212\ufe63\uff0d"
_DASHES = "\u2012\u2013\u2014\u2015\ufe58"
_SPACES = "\u00a0\u2007\u2009\u202f"
_KEPT = "€£¥₹₩‰‱×÷"


@lru_cache(maxsize=65_536)
def symbol(character: str) -> str:
    """The symbol of one character: itself in lower case within ASCII, else what it stands for."""
    if character < "\x80":
        if character in "\t\n\r\x0b\x0c":
            return "\n" if character in "\n\r" else " "
        return CONTROL if character < " " or character == "\x7f" else character.lower()
    if character in _MINUS or character in _DASHES:
        return "-" if character in _MINUS else DASH
    if character in _SPACES:
        return GROUP_SPACE
    if character.isspace():
        return "\n" if character in "\u0085\u2028\u2029" else " "
    if character in _KEPT:
        return character
    if character in "\u2018\u2019":
        return "'"
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    return _other(character)


def _other(character: str) -> str:
    category = unicodedata.category(character)
    folded = unicodedata.normalize("NFKC", character).lower()
    if unicodedata.numeric(character, None) is not None or any(c.isdecimal() for c in folded):
        return NUMERIC
    if len(folded) == 1 and folded < "\x80":
        return folded
    if category in ("Cf", "Cc", "Co", "Cs") or "\ufe00" <= character <= "\ufe0f":
        return INVISIBLE
    return LETTER if category[0] in "LM" else NEUTRAL


def fold(text: str) -> str:
    """The text as symbols, of the same length."""
    return "".join(map(symbol, text))
