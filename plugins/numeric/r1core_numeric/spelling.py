"""The digits of one number: grouping, decimal sign, exponent; what can be read in two ways is refused.

`en`: 1,234.56 (groups of three; Indian groups 12,34,567; 1'234; 1 234 with the typographers' narrow or no-break space).
`de`: 1.234,56. A plain space between groups, and groups of any other size, are not guessed at.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from r1core_numeric.symbols import GROUP_SPACE

Locale = Literal["en", "de"]

RUN = re.compile(rf"\d(?:\d|[.,'{GROUP_SPACE}](?=\d))*|\.\d+")
SPACED = re.compile(r"\d{1,3}(?: \d{3})+(?!\d|[.,]\d\d\d)")
_EXPONENT = re.compile(r"e[+-]?\d{1,3}(?!\w)")
_PLAIN = re.compile(r"\d*(?:\.\d+)?$")
_GROUPED = re.compile(rf"\d{{1,3}}(?:([,'{GROUP_SPACE}])\d{{3}})(?:\1\d{{3}})*(?:\.\d+)?$")
_INDIAN = re.compile(r"\d{1,2}(?:,\d\d)+,\d{3}(?:\.\d+)?$")
_SWAP = str.maketrans(".,", ",.")


def read_digits(folded: str, at: int, locale: Locale) -> tuple[Decimal | None, int, str]:
    """Read the digits at a place.

    Returns
    -------
    The amount (None where it would be a guess), the end of the digits, and a note (then: why).
    """
    run = RUN.match(folded, at)
    assert run is not None
    end = run.end()
    if spaced := SPACED.match(folded, at):
        return None, spaced.end(), "a plain space between groups of digits: one number, or several?"
    spelling = run.group().translate(_SWAP) if locale == "de" else run.group()
    amount, note = _amount(spelling)
    if amount is not None and (power := _EXPONENT.match(folded, end)):
        return Decimal(f"{amount}{power.group()}"), power.end(), "written with an exponent"
    return amount, end, note


def _amount(spelling: str) -> tuple[Decimal | None, str]:
    if _PLAIN.match(spelling):
        return Decimal(spelling), ""
    if _GROUPED.match(spelling) and not spelling.startswith("0"):
        return Decimal(re.sub(rf"[,'{GROUP_SPACE}]", "", spelling)), ""
    if _INDIAN.match(spelling):
        return Decimal(spelling.replace(",", "")), "Indian grouping"
    return None, "separators that are no grouping of this locale"
