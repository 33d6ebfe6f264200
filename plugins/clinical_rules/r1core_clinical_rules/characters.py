"""How one character counts when names are compared, and where the letters of a name are the name.

A character becomes a string over `a-z`, `0-9` and two boundaries between words: a space for white space, `#` for all
else (punctuation, control characters, letters that stand for no Latin letter). "" is a character that is not there at
all for a reader (zero-width, soft hyphen, combining mark). Not covered: leetspeak (`0` for o, `@` for a) and one ASCII
letter for another (`I` for l): digits and ASCII letters stand for themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"
BOUNDARY = "#"
SPACE = " "  # a boundary of white space
ALPHABET = SYMBOLS + BOUNDARY + SPACE  # all that texts are read as

# Letters drawn like Latin ones: each entry is the letter and what it is read as. Upper and lower case differ where
# their shapes do (Greek capital eta is an H). Accented forms need no entry: they decompose first.
_READ_AS = (
    "Αa Βb Εe Ζz Ηh Ιi Κk Μm Νn Οo Ρp Τt Υy Χx Ϲc Ϳj "
    "αa βb γy εe ηn ιi κk νv οo ρp σo τt υu χx ωw ϲc ϳj μu µu "
    "Аa Вb Еe Ѕs Іi Јj Кk Мm Нh Оo Рp Сc Тt Уy Хx Үy Ҭt Ԍg Ԛq Ԝw Һh Ѵv Ԁd "
    "аa вb еe ѕs іi јj кk мm нh оo рp сc тt уy хx үy ҭt ԍg ԛq ԝw һh ѵv ԁd гr пn иu ьb "
    "Ӏl ӏl ǀl Ɩl ȷj ßss ẞss Ðd ɑa Ɑa ɩi Ʀr Ↄc ᲀb ᲂo ᲃc ᲄt ᲅt "
    "🆋ic 🆌pa 🆍sa 🆎ab 🆏wc 🆑cl 🆒cool 🆓free 🆔id 🆕new 🆖ng 🆗ok 🆘sos 🆙up 🆚vs 🅭cc"
)
_LOOK_ALIKE = {entry[0]: entry[1:] for entry in _READ_AS.split()}
# A Latin letter by its Unicode name: accented, stroked, turned, a small capital, a ligature of two.
_LATIN = re.compile(
    r"(?:(?:CROSSED )?NEGATIVE )?(?:CIRCLED |SQUARED )?"
    r"(?:LATIN (?:SMALL |CAPITAL |EPIGRAPHIC )*|REGIONAL INDICATOR SYMBOL )(?:LETTER|LIGATURE) (?:[A-Z-]{2,} )*"
    r"([A-Z]|A[AEOUVY]|DB|DZ|L[SZ]|O[EO]|QP|T[CHSZ]|U[EIO]|VY)"
    r"(?: DIGRAPH| BAR| ROTUNDA| LONGA)?(?: WITH(?:OUT)? .*)?"
)
# Invisible by Unicode (default ignorable) although their category does not say so: the Hangul fillers, and code points
# that are kept for format characters to come.
_IGNORED = frozenset("\u115f\u1160\u3164\uffa0\u2065").union(
    map(chr, (*range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)))
)


def symbols_of(character: str) -> str:
    """Return what one character stands for: symbols and boundaries, or "" where a reader sees nothing."""
    if character in _LOOK_ALIKE:
        return _LOOK_ALIKE[character]
    if character.isspace():
        return SPACE
    if character.isascii():
        return character.lower() if character.isalnum() else BOUNDARY
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Mc", "Cf") or character in _IGNORED:
        return ""
    parts = unicodedata.normalize("NFKD", character)
    if parts != character:
        return _collapse("".join(map(symbols_of, parts)))  # spaces inside of one character are no white space
    if category in ("Nd", "No"):
        number = unicodedata.numeric(character)
        return str(int(number)) if number in range(100) else BOUNDARY
    if category not in ("Ll", "Lu", "Lm", "Lo", "So"):
        return BOUNDARY
    match = _LATIN.fullmatch(unicodedata.name(character, ""))
    return match[1].lower() if match else BOUNDARY


def spell(text: str) -> str:
    """Return a text as symbols and boundaries, runs of boundaries as one."""
    return _collapse("".join(map(symbols_of, text)))


def _collapse(symbols: str) -> str:
    return re.sub(f"[{BOUNDARY}{SPACE}]+", BOUNDARY, symbols)


def normalise(name: str) -> str:
    """Return the symbols of a name alone: "Co-Trimoxazole®" is "cotrimoxazole"."""
    return spell(name).replace(BOUNDARY, "")


MIN_LENGTH = 3  # names of fewer symbols are refused: they would be found everywhere
SHORT = 5  # names of fewer symbols are matched as whole words only
LONG = 8  # names of as many symbols are found anywhere
PIECES = 4  # a name between the two that is cut into as many pieces is spelled out, whatever it is glued to


def is_name(gaps: Sequence[str], *, starts: bool, ends: bool) -> bool:
    """Whether the letters of a name, one behind the other, are the name where they stand.

    Parameters
    ----------
    gaps : what lies between each two letters: "", `BOUNDARY`, or `SPACE` where any of it is white space.
    starts, ends : whether a boundary, or an end of the text, lies before the first and behind the last letter.
    """
    length, cuts = len(gaps) + 1, [gap for gap in gaps if gap]
    if length < SHORT:
        return starts and ends and len(cuts) in (0, length - 1)
    return length >= LONG or SPACE not in cuts or len(cuts) >= PIECES - 1 or (starts and ends)


def tail(text: str, symbols: int) -> str:
    """The end of a text as symbols and boundaries of both kinds, with at least that many symbols where it has them.

    It starts with a boundary where the text itself starts there.
    """
    found: list[str] = []
    for character in reversed(text):
        if symbols <= 0:
            return "".join(reversed(found))
        found.append(symbols_of(character))
        symbols -= len(found[-1].replace(BOUNDARY, "").replace(SPACE, ""))
    return BOUNDARY + "".join(reversed(found))
