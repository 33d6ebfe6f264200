"""Dates and quarters in English text: absolute forms, weekdays, quarters. Nothing is resolved against a today."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from r1core_events.values import Argument, listed

_MONTHS = listed("january february march april may june july august september october november december")
_DAYS = listed("monday tuesday wednesday thursday friday saturday sunday")
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
_MONTH = r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?|" \
         r"Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"  # fmt: skip
_YEAR = r"(?:19|20)\d{2}"
DATE = (
    rf"\b{_YEAR}-[01]\d-[0-3]\d\b"
    rf"|\b{_MONTH}\s+[0-3]?\d(?:st|nd|rd|th)?\b(?!\.\d)(?:,?\s+{_YEAR}\b)?"
    rf"|\b[0-3]?\d(?:st|nd|rd|th)?\s+{_MONTH}\b\.?(?:,?\s+{_YEAR}\b)?"
    rf"|\b{_MONTH}\s+{_YEAR}\b"
    rf"|\b(?:{'|'.join(_DAYS)})\b"
)
"""Pattern of a date, without groups, to be compiled with IGNORECASE."""
_NTH = r"(?:first|second|third|fourth|1st|2nd|3rd|4th)"
QUARTER = rf"\b(?:fiscal\s+)?{_NTH}[\s-]quarter\b(?:(?:\s+of)?(?:\s+fiscal)?\s+{_YEAR}\b)?|\bQ[1-4]\b(?:\s+{_YEAR}\b)?"
_EITHER = re.compile(rf"(?P<quarter>{QUARTER})|(?P<date>{DATE})", re.IGNORECASE)
_PARTS = re.compile(r"[^\W_]+")
_ISO = re.compile(rf"{_YEAR}-\d\d-\d\d")


def dates(text: str, start: int, end: int) -> Iterator[Argument]:
    """Yield the dates and quarters of `text[start:end]`; a day that is in no calendar is left out."""
    for match in _EITHER.finditer(text, start, end):
        spelled = match.group()
        value = quarter(spelled) if match.lastgroup == "quarter" else day(spelled)
        if value:
            yield Argument("date", match.start(), match.end(), value)


def quarter(spelled: str) -> str:
    """ "2024-Q3", or "Q3" without a year."""
    parts = _PARTS.findall(spelled.lower())
    number = next((_ORDINALS[p] for p in parts if p in _ORDINALS), 0) or int(parts[0][1])
    year = next((p for p in parts if len(p) == 4 and p.isdigit()), "")
    return f"{year}-Q{number}" if year else f"Q{number}"


def day(spelled: str) -> str:
    """ISO 8601 as far as the text goes, a weekday's name, or "" for a day that does not exist."""
    if spelled.lower() in _DAYS:
        return spelled.capitalize()
    if _ISO.fullmatch(spelled):
        return spelled if _exists(*map(int, spelled.split("-"))) else ""
    parts = _PARTS.findall(spelled.lower())
    named = next(p[:3] for p in parts if p[0].isalpha() and len(p) > 2)
    month = next(number for number, name in enumerate(_MONTHS, 1) if name.startswith(named))
    digits = [re.sub(r"\D", "", p) for p in parts if p[0].isdigit()]
    year = next((d for d in digits if len(d) == 4), "")
    number = next((int(d) for d in digits if len(d) < 3), 0)
    if not number:
        return f"{year}-{month:02d}" if year and len(digits) == 1 else ""
    if not _exists(int(year or 2024), month, number):  # a leap year, where the text names none
        return ""
    return f"{year or '-'}-{month:02d}-{number:02d}"


def _exists(year: int, month: int, number: int) -> bool:
    try:
        datetime.date(year, month, number)
    except ValueError:
        return False
    return True
