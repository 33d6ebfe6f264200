"""Amounts of money in text, exact: "$1.2 billion" is Money(Decimal("1200000000"), "USD").

Read are digits with a currency sign, an ISO code or a currency's name, and a scale. Decimal comma and amounts in words
("two million dollars") are not. A bare "$" is taken for US dollars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from r1core_events.values import Argument, Money, listed

_SIGNS = {"$": "USD", "us$": "USD", "c$": "CAD", "ca$": "CAD", "a$": "AUD", "nz$": "NZD", "hk$": "HKD", "s$": "SGD",
          "r$": "BRL", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW"}  # fmt: skip
_CODES = listed("USD EUR GBP JPY CHF CAD AUD NZD HKD SGD CNY INR KRW SEK NOK DKK BRL MXN ZAR PLN TRY ILS SAR AED")
_NAMES = {"dollar": "USD", "euro": "EUR", "pound": "GBP", "yen": "JPY", "franc": "CHF", "yuan": "CNY", "rupee": "INR",
          "krona": "SEK", "krone": "NOK", "real": "BRL", "peso": "MXN", "rand": "ZAR", "zloty": "PLN"}  # fmt: skip
_SCALES = {"thousand": 3, "k": 3, "million": 6, "mn": 6, "m": 6, "mm": 6, "mln": 6, "billion": 9, "bn": 9, "b": 9,
           "bln": 9, "trillion": 12, "tn": 12, "trn": 12, "crore": 7, "lakh": 5}  # fmt: skip
_NUMBER = r"\d{1,3}(?:,\d{2,3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"thousand|million|billion|trillion|crore|lakh|mln|bln|trn|bn|mn|mm|tn|m|b|k"
_SIGN = r"(?:(?:US|CA|NZ|HK|C|A|S|R)?\$|[€£¥₹₩])"
_FULL = r"(?:U\.?S\.?\s|Canadian\s|Australian\s)?(?:dollars?|euros?|pounds?(?:\ssterling)?|yen|francs?|yuan|rupees?|" \
        r"kron(?:a|or|e|er)|pesos?|rand|zlotys?)"  # fmt: skip
_HEAD = rf"(?:\b(?:{'|'.join(_CODES)})\s?|(?<![^\W\d_]){_SIGN}\s?)"
MONEY = (
    rf"{_HEAD}(?:{_NUMBER})(?:[\s-]?(?:{_SCALE})\b)?"
    rf"|\b(?:{_NUMBER})(?:[\s-]?(?:{_SCALE}))?[\s-]?(?:(?:{'|'.join(_CODES)})|{_FULL})\b"
    rf"|\b(?:{_NUMBER})(?:\s?(?:{_SCALE}))?\s?[€£]"
)
"""Pattern of an amount, without groups, to be compiled with IGNORECASE."""
_MONEY = re.compile(MONEY, re.IGNORECASE)
_DIGITS = re.compile(_NUMBER)
_WORD = re.compile(rf"(?:{_SCALE})(?![^\W\d_])", re.IGNORECASE)


def amounts(text: str, start: int, end: int) -> Iterator[Argument]:
    """Yield the amounts of `text[start:end]`."""
    for match in _MONEY.finditer(text, start, end):
        yield Argument("amount", match.start(), match.end(), money(match.group()))


def money(spelled: str) -> Money:
    """The exact value of an amount that `MONEY` matches."""
    digits = _DIGITS.search(spelled)
    if digits is None:
        raise ValueError(f"{spelled!r} holds no number")  # never, by the pattern
    head, tail = spelled[: digits.start()].strip().lower(), spelled[digits.end() :].strip(" -\t\r\n")
    scale = _WORD.match(tail)
    value = Decimal(digits.group().replace(",", ""))
    if scale:
        value = value.scaleb(_SCALES[scale.group().lower()])
        tail = tail[scale.end() :]
    return Money(Decimal(format(value, "f")), _currency(head, tail.strip(" -\t\r\n").lower()))


def _currency(head: str, tail: str) -> str:
    for found in (head, tail):
        if found in _SIGNS:
            return _SIGNS[found]
        if found.upper() in _CODES:
            return found.upper()
    for country, code in (("canadian", "CAD"), ("australian", "AUD")):
        if tail.startswith(country):
            return code
    last = tail.removesuffix(" sterling").split()[-1] if tail else ""
    for name, code in _NAMES.items():
        if last.rstrip("s") == name or last in ("kronor" if code == "SEK" else "kroner" if code == "NOK" else name,):
            return code
    return ""
