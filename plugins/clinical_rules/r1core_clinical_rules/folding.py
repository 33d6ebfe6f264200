"""Text as a reader sees it, for the recheck of a finished text. On purpose it shares nothing with the automaton.

Folded are case, compatibility forms, accents, invisible characters, and the Cyrillic and Greek letters listed here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_LUNATE = str.maketrans("ϲϹ", "cc")  # which decompose to a sigma
_BOXED = {  # several letters in one character
    "🅭": "cc", "🆋": "ic", "🆌": "pa", "🆍": "sa", "🆎": "ab", "🆏": "wc", "🆑": "cl", "🆒": "cool",
    "🆓": "free", "🆔": "id", "🆕": "new", "🆖": "ng", "🆗": "ok", "🆘": "sos", "🆙": "up", "🆚": "vs",
}  # fmt: skip
# Read otherwise than what they fold to, some as none.
_CAPITALS = str.maketrans("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧӀÐƦƖǀⱭɑɩΓΔΘΛΞΠΣΦΨΩςГПИЬ", "abezhikmnoptyxldrllaai" + " " * 15)
_CYRILLIC = str.maketrans("асеорхуіјѕһԁԛԝмткнвгпиьӏѵүҭԍ", "aceopxyijshdqwmtkhbrnublvytg")
_GREEK = str.maketrans("αβγεηικνορστυχωϳ", "abyenikvopotuxwj")
_LETTER = re.compile(
    r"(?:[A-Z]+ )*(?:LATIN|INDICATOR SYMBOL) (?:[A-Z]+ )?(?:[A-Z]+ )?(?:LETTER|LIGATURE) (?:[^ ]+ )*?"
    r"([A-Z]|AA|AE|AO|AU|AV|AY|DB|DZ|LS|LZ|OE|OO|QP|TC|TH|TS|TZ|UE|UI|UO|VY)"
    r"(?: (?:WITH|WITHOUT|BAR|DIGRAPH|LONGA|ROTUNDA)(?: .*)?)?"
)
_DROPPED = ("Mn", "Me", "Mc", "Cf")
_UNSEEN = frozenset((0x115F, 0x1160, 0x2065, 0x3164, 0xFFA0, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)))


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text; `origin[i]` is the offset in the original of character i, `white` the places of white space."""

    text: str
    origin: tuple[int, ...]
    white: frozenset[int] = frozenset()


@lru_cache(maxsize=8192)
def _fold(character: str) -> str:
    """What one character is read as."""
    if ord(character) in _UNSEEN:
        return ""
    if character in _BOXED:
        return _BOXED[character]
    plain = unicodedata.normalize("NFKD", character.translate(_LUNATE))
    plain = "".join(c for c in plain if unicodedata.category(c) not in _DROPPED)
    plain = plain.translate(_CAPITALS).casefold()
    if "\u2044" in plain:
        plain = f" {plain}"  # "3½" is "3 1⁄2"
    return "".join(map(_as_ascii, plain.translate(_CYRILLIC).translate(_GREEK)))


def _as_ascii(character: str) -> str:
    if character.isascii() or character in "\u2044–—×µμ":
        return {"µ": "u", "μ": "u"}.get(character, character)
    if unicodedata.category(character) in ("Nd", "No"):
        number = unicodedata.numeric(character)
        return f"{number:.0f}" if number < 100 and number % 1 == 0 else " "
    named = _LETTER.fullmatch(unicodedata.name(character, ""))
    return named[1].lower() if named else " "


def fold(text: str) -> Folded:
    """Fold a text, keeping the place of every character."""
    parts: list[str] = []
    origin: list[int] = []
    white: list[int] = []
    for at, character in enumerate(text):
        folded = _fold(character)
        if character.isspace():
            white.append(len(origin))
        parts.append(folded)
        origin += [at] * len(folded)
    return Folded("".join(parts), tuple(origin), frozenset(white))


def letters(folded: Folded) -> Folded:
    """Its letters and digits alone."""
    kept = [i for i, c in enumerate(folded.text) if c.isascii() and c.isalnum()]
    return Folded("".join(folded.text[i] for i in kept), tuple(kept))


def words(text: str) -> str:
    """Its words, each between spaces: ` check the inr `."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', fold(text).text))} "


def mentions(folded: Folded, name: str) -> list[tuple[int, int]]:
    """Where a name stands in a folded text, as (start, end) in it."""
    bare, squeezed = letters(fold(name)).text, letters(folded)
    found, at = [], squeezed.text.find(bare)
    while at >= 0:
        places = squeezed.origin[at : at + len(bare)]
        if _reads_as_name(folded, places):
            found.append((places[0], places[-1] + 1))
        at = squeezed.text.find(bare, at + 1)
    return found


def _reads_as_name(folded: Folded, places: Sequence[int]) -> bool:
    """Whether letters at these places are a name of as many letters, or only happen to follow each other.

    Eight and more are one wherever they stand. Three and four have to be a word, or words of one letter. Between, they
    may stand in two or three pieces with white space between them only as whole words: "arm, initial" holds no "armin".
    """
    start, end = places[0], places[-1] + 1
    pieces = re.findall(r"[a-z0-9]+", folded.text[start:end])
    outside = folded.text[max(0, start - 1) : start] + folded.text[end : end + 1]
    whole = re.search(r"[a-z0-9]", outside) is None
    if len(places) <= 4:
        return whole and len(pieces) in (1, len(places))
    if len(places) >= 8 or len(pieces) >= 4 or whole:
        return True
    return not any(place in folded.white for place in range(start, end))
