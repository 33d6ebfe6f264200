"""Digits that are no quantity: dates, times, fiscal periods, ordinals, section numbers, telephone numbers, list marks.

Found first, over the folded text, so that what is left can be read as numbers. What two readings share is decided by
the order of the patterns. Not covered: dates in words of other languages, house numbers, serial numbers without
letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from r1core_numeric.lexicon import LABELS, MONTHS, VERBS
from r1core_numeric.symbols import DASH
from r1core_numeric.values import Kind

_MONTH = rf"(?:{'|'.join(sorted(MONTHS, key=len, reverse=True))})\b\.?"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?:1[5-9]|2[01])\d\d"
_HYPHEN = rf"[-{DASH}]"
_BEFORE = rf"(?<![\w.,/$€£¥₹₩'{DASH}-])"
_AFTER = r"(?![\w%]|[.,/'-]\d)"
_LABEL = "|".join(sorted(LABELS, key=len, reverse=True))

_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("date", rf"{_BEFORE}\d{{4}}-\d\d?-\d\d?(?:[t ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?z?)?{_AFTER}"),
    ("date", rf"{_BEFORE}\d\d?([/.])\d\d?\1(?:\d{{4}}|\d\d){_AFTER}"),
    ("date", rf"\b{_MONTH}\s+{_DAY}(?:\s*,\s*{_YEAR}|\s+{_YEAR})?{_AFTER}(?!\s*(?:percent|million|billion))"),
    ("date", rf"{_BEFORE}{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR}{_AFTER})?(?!\w)"),
    ("date", rf"\b{_MONTH},?\s+{_YEAR}{_AFTER}"),
    ("label", rf"{_BEFORE}\d\d?:\d\d(?::\d\d)?{_AFTER}"),
    ("label", rf"{_BEFORE}(?:[fc]y\s?'?)(?:\d{{4}}|\d\d)(?:[/-]\d\d)?(?:e|a)?{_AFTER}"),
    ("label", rf"{_BEFORE}(?:[qh][1-4](?:[ -]?(?:{_YEAR}|'\d\d|\d\d))?|[1-4][qh](?:{_YEAR}|\d\d)){_AFTER}"),
    ("label", rf"{_BEFORE}{_YEAR}(?:/|{_HYPHEN})\d\d{_AFTER}"),
    ("label", r"(?<![\w.,])(?:us\$|[$€£¥])?\s?'?000'?s?(?!\w)"),
    ("label", r"(?<![\w])'\d\d(?!\d)"),
    ("label", rf"\b(?:{_LABEL})\b\.?\s?\(?\d[\w.-]*(?:\(\w\))*(?:(?:,| and| &| to)\s?\d[\w.]*{_AFTER})*(?<![.,-])"),
    ("label", r"(?<!\w)#\s?\d[\w.-]*(?<![.-])"),
    ("label", rf"{_BEFORE}\+?\(?\d{{1,4}}\)?(?:[ -]\d{{2,4}}){{1,3}}-\d{{3,4}}{_AFTER}"),
    ("label", rf"{_BEFORE}\d+(?:{_HYPHEN}\d+){{2,}}{_AFTER}"),
    ("ordinal", rf"{_BEFORE}\d+(?:st|nd|rd|th){_AFTER}"),
    ("label", r"^[ \u00a0]*\(?\d{1,2}[.)](?=[ \u00a0]|$)"),
    ("label", r"\[\d{1,3}\]|(?<![\w$€£¥₹₩)])\(\d{1,2}\)(?!\s*(?:%|percent|million|billion|thousand|bn|mn)|\w)"),
    ("label", r"(?<![\d.,])[^\W\d]+[-_/]?\d[\w]*(?:[-/.]\w+)*"),
    ("label", r"(?<![\w.,])\d+-[kqf]\b"),
)
PATTERNS = tuple((kind, re.compile(pattern, re.MULTILINE)) for kind, pattern in _PATTERNS)
_CAPITAL = re.compile(rf"\b(?:{'|'.join(VERBS)})\b")


def names(text: str, folded: str, currency: re.Pattern[str]) -> Iterator[tuple[Kind, int, int]]:
    """Yield kind, start and end of each, none overlapping another, in the order of the patterns.

    Parameters
    ----------
    currency : what is a currency, glued or not, before a number (`EUR5` is no name).
    """
    taken = bytearray(len(text))
    for kind, pattern in PATTERNS:
        for found in pattern.finditer(folded):
            start, end = found.span()
            if any(taken[start:end]) or currency.match(folded, start) or _verb(text, folded, start, end):
                continue
            taken[start:end] = b"\x01" * (end - start)
            yield kind, start, end


def _verb(text: str, folded: str, start: int, end: int) -> bool:
    """Whether a month's name in lower case is likelier a verb ("may", "march")."""
    found = _CAPITAL.search(folded, start, end)
    return found is not None and text[found.start()].islower()
