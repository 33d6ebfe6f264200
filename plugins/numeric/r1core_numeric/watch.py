"""Words that make or change a number, for the decode constraint: "seven", "million", "percent", "minus", "Note".

What is a number in words is refused everywhere; a scale or unit only directly behind a number; behind others ("minus",
"Note", "March", "USD") no digits may follow, for they would be another number or none. A hyphen counts as a space.
"""

from __future__ import annotations

from functools import cache

from r1core_numeric import lexicon as lx
from r1core_numeric.tries import Trie

NUMBER = 1  # refused where the word ends
NUMBER_PREFIX = 2  # refused at its last letter, whatever follows
AFTER = 4  # refused behind a number, where the word ends
AFTER_PREFIX = 8  # refused behind a number, at its last letter
LEAD = 16  # no digits behind it
RANGE = 32  # "to"
AND = 64
MEASURE = 128  # refused behind a number of another measure
PER_SHARE = 256  # refused behind money that is not per share
SLASH_SHARE = 512  # the same, behind a slash

_CARDINALS = (*lx.UNITS, *lx.TENS)
_FACTORS = (*lx.WORD_SCALES, "dozen")


@cache
def words() -> Trie:
    """The trie of all of them, its bits the roles above."""
    trie = Trie()
    for word in _CARDINALS:
        trie.add(word, NUMBER)
    for article in lx.ONES:
        for factor in _FACTORS:
            trie.add(f"{article} {factor}", NUMBER_PREFIX)
    for word in (
        "one",
        *lx.SCALE_ABBREVIATIONS,
        *lx.SCALE_LETTERS,
        "q",
        "f",
        *lx.MONTHS,
        "x",
        "pct",
        "bp",
        "bps",
        "hundred",
    ):
        trie.add(word, AFTER)
    for month in lx.MONTHS:
        trie.add(f"of {month}", AFTER)
    for word in (*lx.WORD_SCALES, "milliard", "percent", "per cent", "percentage point", "basis point"):
        trie.add(word, AFTER_PREFIX)
    for word in ("times", "fold", "dozen", *lx.CURRENCY_WORDS, *(code.lower() for code in lx.CODES)):
        trie.add(word, AFTER)
    for adjective in ("us", "u.s.", "canadian", "australian"):
        trie.add(f"{adjective} dollar", AFTER_PREFIX)
    for word in (*lx.NEGATIVE_WORDS, *lx.MONTHS, *lx.LABELS, *(code.lower() for code in lx.CODES)):
        trie.add(word, LEAD)
    for word in lx.MEASURES:
        trie.add(word, MEASURE)
    for per in ("per", "a"):
        for kind in ("", "common ", "ordinary "):
            trie.add(f"{per} {kind}share", PER_SHARE)
    trie.add("share", SLASH_SHARE)
    trie.add("to", RANGE)
    trie.add("and", AND)
    return trie
