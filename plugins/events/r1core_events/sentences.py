"""Text into sentences, as offsets of the raw text. By punctuation and line ends, without a parser.
from r1core_events.values import listed

A line end is a sentence's end unless the next line begins with a lower-case letter. Not covered: abbreviations beyond
the list, sentences that end without punctuation on the same line, hard-wrapped text whose next line begins otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from r1core_events.values import listed

_ABBREVIATIONS = frozenset(
    listed(
        "inc corp co ltd plc llc lp sa s.a ag nv n.v s.p.a spa bv b.v no nos vs v mr mrs ms dr prof st jr sr "
        "u.s u.k u.n "
        "e.g i.e etc al fig approx est dept gov sen rep jan feb mar apr jun jul aug sep sept oct nov dec art sec bros "
        "cie mfg intl bancorp p.m a.m ph.d ca cf"
    )
)
_LEGAL = frozenset(listed("inc corp co ltd plc llc lp sa s.a ag nv n.v spa s.p.a bv b.v p.m a.m jr sr etc"))
_BREAK = re.compile(
    r"[.!?]+[\"')\]\u201d\u2019]*(?=\s|$)|[\u3002\uff01\uff1f]+|[\r\n\u2028\u2029]\s*(?![^\W\d_A-Z\u00c0-\u00de])"
)
_LAST_WORD = re.compile(r"[^\s(\"']*$")
MAX_SENTENCE = 1_000
"""Characters. What goes on for longer without a sentence's end (a table, say) is cut at a blank."""


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield `[start, end)` of every sentence, without the white space around it."""
    begin = 0
    for match in _BREAK.finditer(text):
        if match.end() > begin and not _goes_on(text, begin, match):
            yield from _trimmed(text, begin, match.end())
            begin = match.end()
    yield from _trimmed(text, begin, len(text))


def _goes_on(text: str, begin: int, match: re.Match[str]) -> bool:
    """Whether a full stop belongs to an abbreviation and the sentence goes on behind it."""
    if match.group() != ".":
        return False
    found = _LAST_WORD.search(text, begin, match.start())
    word = found.group().lower() if found else ""
    initial = len(word) == 1 and word.isalpha() and match.start() > begin + 1
    if not initial and word not in _ABBREVIATIONS:
        return False
    following = text[match.end() : match.end() + 2].strip()
    # "Norvale Inc. said" goes on; "... was bought by Norvale Inc. The price" does not
    return not (word in _LEGAL and following[:1].isupper() and _opens(text, match.end()))


def _opens(text: str, at: int) -> bool:
    word = text[at : at + 24].split(maxsplit=1)
    return bool(word) and word[0].rstrip(",") in _OPENERS


_OPENERS = frozenset(
    listed(
        "The A An It Its In On At For He She They We This That These Those Separately Shares Both Under As After Terms "
        "Neither Analysts Investors Holders Meanwhile But And If No"
    )
)


def _trimmed(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    while end - begin > MAX_SENTENCE:
        cut = text.rfind(" ", begin + 1, begin + MAX_SENTENCE)
        cut = cut if cut > begin else begin + MAX_SENTENCE
        yield begin, cut
        begin = cut + (text[cut] == " ")
    if begin < end:
        yield begin, end
