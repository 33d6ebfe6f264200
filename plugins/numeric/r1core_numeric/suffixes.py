"""What follows the digits and belongs to them: scale, percent, basis points, currency, multiple, measure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1core_numeric import lexicon as lx
from r1core_numeric.symbols import GROUP_SPACE
from r1core_numeric.values import Unit

GAP = rf"(?:[ {GROUP_SPACE}]|\n(?!\n))"


def _words(words: list[str]) -> str:
    return "|".join(re.escape(w).replace(r"\ ", rf"{GAP}+") for w in sorted(words, key=len, reverse=True))


_LONG = [*lx.SCALE_WORDS, *lx.SCALE_ABBREVIATIONS]
_SCALE = re.compile(rf"(?:{GAP}*|-)({_words(_LONG)})(?![^\W_])")
_LETTER = re.compile(rf"({GAP}?)(mm|[kmbt])(?![^\W_])")
_PERCENT = re.compile(rf"{GAP}*%|(?:{GAP}*|-)(?:{_words(list(lx.PERCENT_WORDS))})(?!\w)")
_BASIS = re.compile(rf"(?:{GAP}*|-)(?:{_words(list(lx.BASIS_POINT_WORDS))})(?!\w)")
_PERMILLE = re.compile(rf"{GAP}*[‰‱]")
_TIMES = re.compile(rf"{GAP}?x(?!\w)|{GAP}+times(?!\w)|{GAP}?-?fold(?!\w)")
_CODE = re.compile(rf"{GAP}*({_words([*(c.lower() for c in lx.CODES), *lx.CURRENCY_WORDS])})(?!\w)")
_US = re.compile(rf"{GAP}*(?:(u\.?s\.?|canadian|australian){GAP}+)?(dollars?)(?!\w)")
_MEASURE = re.compile(rf"(?:{GAP}+|-)({_words(list(lx.MEASURES))})(?!\w)")
_SHARE = re.compile(rf"{GAP}*(?:per|a|/){GAP}*(?:common |ordinary )?share(?!\w)")
_SIGN = re.compile(rf"{GAP}?([€£₹])(?!{GAP}?\d)")
_DOLLARS = {"canadian": "CAD", "australian": "AUD"}


@dataclass(frozen=True, slots=True)
class Suffix:
    """What was found: power of ten, unit, the end in the text, and why it cannot be read ("" where it can).

    `own` : whether there is a scale or a unit at all.
    """

    scale: int
    unit: Unit
    end: int
    why: str = ""
    own: bool = False


def suffix(folded: str, at: int, unit: Unit) -> Suffix:
    """Read what follows the digits that end at `at`.

    Parameters
    ----------
    unit : the currency before the digits, or `Unit()`.
    """
    scale, end = 0, at
    found = _SCALE.match(folded, end)
    while found:
        word = found.group(1)
        scale, end = scale + (lx.SCALE_WORDS.get(word) or lx.SCALE_ABBREVIATIONS[word]), found.end()
        found = _SCALE.match(folded, end)
    if not scale and (letter := _LETTER.match(folded, end)):
        spaced, which = bool(letter.group(1)), letter.group(2)
        if unit.name or (not spaced and which in ("k", "m", "b")):
            scale, end = lx.SCALE_LETTERS[which], letter.end()
        elif spaced or which == "mm":
            why = f"`{which}` behind a number without a currency: a scale, or a unit of measure?"
            return Suffix(0, unit, letter.end(), why, own=True)
    if mark := _PERMILLE.match(folded, end):
        return Suffix(scale, unit, mark.end(), "per mille is not read", own=True)
    unit, end = _unit(folded, end, unit)
    if unit.is_currency and (per := _SHARE.match(folded, end)):
        unit, end = Unit(unit.name, "share"), per.end()
    return Suffix(scale, unit, end, own=end > at)


def _unit(folded: str, at: int, unit: Unit) -> tuple[Unit, int]:
    """The unit behind digits and scale, and where it ends; a currency before the digits stays."""
    if unit.name:
        code = _US.match(folded, at) or _CODE.match(folded, at)
        same = code is not None and _currency(code) == unit.name
        return unit, code.end() if same and code is not None else at
    for pattern, name in ((_PERCENT, "percent"), (_BASIS, "basis_point"), (_TIMES, "multiple")):
        if found := pattern.match(folded, at):
            return Unit(name), found.end()
    if found := _US.match(folded, at) or _CODE.match(folded, at):
        return Unit(_currency(found)), found.end()
    if found := _SIGN.match(folded, at):
        return Unit(lx.SYMBOLS[found.group(1)]), found.end()
    if found := _MEASURE.match(folded, at):
        return Unit(lx.MEASURES[found.group(1)]), found.end()
    return unit, at


def _currency(found: re.Match[str]) -> str:
    if found.re is _US:
        return _DOLLARS.get(found.group(1) or "", "USD")
    word = found.group(1)
    return lx.CURRENCY_WORDS.get(word) or word.upper()
