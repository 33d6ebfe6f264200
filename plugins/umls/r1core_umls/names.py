"""How a name and a stretch of text are compared: tokens, their normal form, and the key of a run of tokens.

The normal form drops case, accents of the Latin script, possessive `'s` and simple English plurals; token order is
kept. Hyphens, apostrophes and slashes count as spaces. Any other punctuation that stands in the text must stand in the
name too ("lung. Cancer" is not "lung cancer"), while punctuation of a name may be missing in the text.

Not covered: stemming, spelling correction, reordering of words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# Scripts written without spaces (kana, Han): every character is a token of its own.
_CJK = "\u3040-\u30ff\u3400-\u9fff"
_LETTER = rf"[^\W_{_CJK}]"
_TOKEN = re.compile(rf"[{_CJK}]|{_LETTER}(?:{_LETTER}|[\u0300-\u036f])*(?:['\u2019]s(?![^\W_]))?")
_ACCENTS = re.compile("[\u0300-\u036f]")
# White space, hyphens U+2010 to U+2013 and minus, apostrophes, slash, underscore: nothing of these ends a phrase.
_SOFT = re.compile("[\\s\\-\u2010-\u2013\u2212'\u2019/_]+")
_PARAGRAPH = re.compile(r"\n\s*\n")
_ES = ("sses", "shes", "ches", "xes", "zes")
_NO_PLURAL = ("ss", "us", "is")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text cut into tokens: `starts` and `ends` in characters, normal forms, and `gaps[i]` in front of token i."""

    starts: list[int]
    ends: list[int]
    norms: list[str]
    gaps: list[str]


@lru_cache(maxsize=65536)
def normalise_token(token: str) -> str:
    """Return the normal form of one token: casefolded, without accents, possessive and plural endings."""
    folded = token.casefold()
    if not folded.isascii():
        folded = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded)).casefold()
    if folded.endswith(("'s", "\u2019s")):
        return folded[:-2]
    return _singular(folded)


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(_NO_PLURAL):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_ES) else word[:-1]


def norms_of(text: str) -> list[str]:
    """Return the normal forms of a text's tokens: what `tokenise` gives as `norms`, without the rest."""
    return [normalise_token(token) for token in _TOKEN.findall(text)]


def tokenise(text: str) -> Tokens:
    """Cut a text into tokens; characters outside of every token only matter as gaps."""
    starts: list[int] = []
    ends: list[int] = []
    norms: list[str] = []
    gaps: list[str] = []
    last = 0
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        gap = text[last:start]
        gaps.append(" " if gap == " " else _gap_key(gap))
        starts.append(start)
        ends.append(end)
        norms.append(normalise_token(match.group()))
        last = end
    return Tokens(starts, ends, norms, gaps)


def _gap_key(gap: str) -> str:
    if _PARAGRAPH.search(gap):
        return "\n"
    return _SOFT.sub("", gap) or " "


def key_of(tokens: Tokens, first: int, last: int) -> str:
    """Return the key of tokens `[first, last)`: normal forms joined by their gaps."""
    parts = [tokens.norms[first]]
    for index in range(first + 1, last):
        parts += (tokens.gaps[index], tokens.norms[index])
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class SurfaceKeys:
    """A name prepared for the index: `core` is the name without punctuation at its ends, `count` its tokens."""

    core: str
    keys: tuple[str, ...]
    first: str
    count: int


def surface_keys(surface: str) -> SurfaceKeys | None:
    """Return the keys under which a name is found, or None where it has no two letters or digits."""
    tokens = tokenise(surface)
    if "\0" in surface or not tokens.starts or sum(map(str.isalnum, surface)) < 2 or not any(map(str.isalpha, surface)):
        return None
    count = len(tokens.starts)
    core = surface[tokens.starts[0] : close_bracket(surface, tokens.starts[0], tokens.ends[-1])]
    keys = dict.fromkeys((key_of(tokens, 0, count), " ".join(tokens.norms)))
    return SurfaceKeys(core, tuple(keys), tokens.norms[0], count)


def close_bracket(text: str, start: int, end: int) -> int:
    """Return `end`, moved behind a closing bracket that belongs to one opened inside `[start, end)`."""
    if text[end : end + 1] == ")" and text.count("(", start, end) > text.count(")", start, end):
        return end + 1
    return end


def is_acronym(surface: str) -> bool:
    """Whether a name is a short all-capitals word, which must match letter for letter (ALL is not "all")."""
    return len(surface) <= 6 and surface.isupper() and surface.isalnum()
