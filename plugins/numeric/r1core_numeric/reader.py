"""Reads every number of a text exactly, with unit, scale, sign convention and place; what is ambiguous is not guessed.

Names with digits are told apart first (`names.py`), then each run of digits is read with what hugs it, then numbers in
words. The result is in order of position, nothing overlaps, and every character that is a digit is in some result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from r1core_numeric import lexicon as lx
from r1core_numeric.names import names
from r1core_numeric.number_words import number_words
from r1core_numeric.spelling import RUN, Locale, read_digits
from r1core_numeric.suffixes import GAP, suffix
from r1core_numeric.symbols import DASH, GROUP_SPACE, INVISIBLE, NUMERIC, fold
from r1core_numeric.values import Kind, Number, Sign, Unit

_SYMBOLS = "|".join(re.escape(s) for s in sorted(lx.SYMBOLS, key=len, reverse=True))
_CODES = "|".join(sorted((c.lower() for c in lx.CODES), key=len, reverse=True))
_PREFIX = re.compile(
    rf"(?P<open>\()?(?P<sign>[-+{DASH}])?[ {GROUP_SPACE}]*?"
    rf"(?:(?<!\w)(?P<code>{_CODES}){GAP}?)?(?P<symbol>(?<![a-z])(?:{_SYMBOLS}))?[ {GROUP_SPACE}]*"
    rf"(?P<open2>\()?(?P<sign2>[-+{DASH}])?(?=\.?\d)"
)
_GLUED_CODE = re.compile(rf"(?:{_CODES})[ {GROUP_SPACE}]?[-(]?\.?\d")
_SIGN_WORD = re.compile(rf"\b({'|'.join(lx.NEGATIVE_WORDS)}){GAP}+$")
_YEAR = re.compile(r"(?:19|20)\d\d$")
_RANGE = re.compile(rf"[ {GROUP_SPACE}]?[-{DASH}][ {GROUP_SPACE}]?|{GAP}+to{GAP}+")
_BACK = 8  # characters before digits that a prefix can take, currency and all

_FRACTIONS = {"½": "0.5", "¼": "0.25", "¾": "0.75", "⅛": "0.125", "⅜": "0.375", "⅝": "0.625", "⅞": "0.875",
              "⅕": "0.2", "⅖": "0.4", "⅗": "0.6", "⅘": "0.8"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """How numbers are read.

    Parameters
    ----------
    locale : `en` (1,234.56) or `de` (1.234,56).
    parentheses : what they say around a number in running text; in tables they are always negative.
    dollar, yen : the currency of `$` and `¥`.
    """

    locale: Locale = "en"
    parentheses: str = "negative"
    dollar: str = "USD"
    yen: str = "JPY"


DEFAULT = Reading()


def read(text: str, reading: Reading = DEFAULT, part: int = 0) -> tuple[Number, ...]:
    """Read every number of a text, in order of position; `text[n.start : n.end] == n.text` for each.

    Parameters
    ----------
    part : the message that the text is, for the numbers' places.
    """
    return _Scan(text, reading, part).numbers()


class _Scan:
    """One text being read."""

    def __init__(self, text: str, reading: Reading, part: int, *, cell: bool = False) -> None:
        self.text, self.reading, self.part, self.cell = text, reading, part, cell

    @cached_property
    def folded(self) -> str:
        return fold(self.text)

    def numbers(self) -> tuple[Number, ...]:
        found = [] if self.cell else [self._made(*name) for name in self._names()]
        taken = bytearray(len(self.text))
        for number in found:
            taken[number.start : number.end] = b"\x01" * (number.end - number.start)
        for number in self._quantities(taken):
            found.append(number)
            taken[number.start : number.end] = b"\x01" * (number.end - number.start)
        for start, end, value in number_words(self.folded):
            if not any(taken[start:end]):
                found.append(self._in_words(start, end, value))
                taken[start : found[-1].end] = b"\x01" * (found[-1].end - start)
        found += self._characters(taken)
        return tuple(self._ranges(sorted(found, key=lambda n: n.start)))

    def _names(self) -> Iterator[tuple[Kind, int, int]]:
        return names(self.text, self.folded, _GLUED_CODE)

    def _made(self, kind: Kind, start: int, end: int, note: str = "") -> Number:
        return Number(self.text[start:end], start, end, kind, note=note, part=self.part)

    def _quantities(self, taken: bytearray) -> Iterator[Number]:
        at = 0
        while run := RUN.search(self.folded, at):
            start = run.start()
            if taken[start]:
                at = next((i for i in range(start, len(taken)) if not taken[i]), len(taken))
                continue
            if run.group().startswith(".") and start and self.folded[start - 1].isalnum():
                at = start + 1  # a full stop before a number, not its decimal point
                continue
            number = self._quantity(start, at)
            if any(taken[number.start : number.end]):
                end = next((i for i in range(start, run.end()) if taken[i]), run.end())
                number = self._made("unread", start, end, "it hugs a name")
            yield number
            at = number.end

    def _quantity(self, digits: int, floor: int) -> Number:
        """Read the number whose digits start at a place; nothing before `floor` belongs to it."""
        prefix = self._prefix(digits, floor)
        start = prefix.start() if prefix else digits
        amount, end, note = read_digits(self.folded, digits, self.reading.locale)
        whole = self.folded[digits:end]
        before, behind = self.folded[digits - 1 : digits], self.folded[end : end + 1]
        unit = self._currency(prefix)
        follows = suffix(self.folded, end, unit)
        if amount is not None and behind == "/" and self.folded[end + 1 : end + 2].isdigit():
            other = RUN.match(self.folded, end + 1)
            assert other is not None
            return self._made("unread", digits, other.end(), "a fraction, or a date? write it as a decimal")
        if INVISIBLE in (before, behind) or NUMERIC in (before, behind):
            return self._made("unread", digits, end, "it touches an invisible character or a numeral")
        if amount is None:
            return self._made("unread", start, max(end, follows.end), note)
        if follows.why:
            return self._made("unread", start, follows.end, follows.why)
        if follows.end == end and (behind.isalnum() or behind == "_"):
            word = re.compile(r"\w+").match(self.folded, end)
            return self._made("label", digits, word.end() if word else end, "letters hug the digits")
        plain = not follows.own and unit == Unit() and amount.as_tuple().exponent == 0 and whole.isdigit()
        if plain and not self.cell and _YEAR.match(whole) and self._negative(prefix, end, amount, plain)[0] == "none":
            return replace(self._made("year", digits, end), amount=amount, unit=Unit("year"))
        return self._signed(prefix, start, end, amount, follows.end, note, plain)

    def _signed(
        self, prefix: re.Match[str] | None, start: int, end: int, amount: Decimal, last: int, note: str, plain: bool
    ) -> Number:
        """The number with its sign: a minus, parentheses, "minus", or, in a cell, a minus behind it."""
        sign, closed = self._negative(prefix, end, amount, plain)
        behind = suffix(self.folded, closed or end, self._currency(prefix))
        if behind.why:
            return self._made("unread", start, behind.end, behind.why)
        last = behind.end
        if prefix and (prefix["open"] or prefix["open2"]):
            if closed is None and self.folded[last : last + 1] == ")" and (sign := self._bracketed(plain)):
                last += 1
                further = suffix(self.folded, last, behind.unit)
                if not behind.own and further.own:
                    behind, last = further, further.end
            if sign != "parentheses" and prefix["open"]:
                start = prefix.start() + 1
        if sign == "none" and (word := _SIGN_WORD.search(self.folded, max(0, start - 12), start)):
            sign, start = "word", word.start()
        if sign == "none" and self.cell and self.folded[last : last + 1] in ("-", DASH):
            sign, last = "trailing", last + 1
        if sign in ("minus", "parentheses", "word", "trailing"):
            amount = amount.copy_negate()
        found = self._made("quantity", start, last, note)
        return replace(found, amount=amount, scale=behind.scale, unit=behind.unit, sign=sign)

    def _negative(
        self, prefix: re.Match[str] | None, end: int, amount: Decimal, plain: bool
    ) -> tuple[Sign, int | None]:
        """The sign before the digits, or parentheses that close right behind them (then also where these end)."""
        if prefix is None:
            return "none", None
        if prefix["sign"] or prefix["sign2"]:
            return ("plus" if "+" in (prefix["sign"], prefix["sign2"]) else "minus"), None
        if (prefix["open"] or prefix["open2"]) and self.folded[end : end + 1] == ")":
            year = plain and not self.cell and bool(_YEAR.match(str(amount))) and not prefix["open2"]
            return ("none", None) if year or not self._bracketed(plain) else ("parentheses", end + 1)
        return "none", None

    def _bracketed(self, plain: bool) -> Sign:
        """What closed parentheses say."""
        negative = self.cell or self.reading.parentheses == "negative"
        return "parentheses" if negative else "none"

    def _prefix(self, digits: int, floor: int) -> re.Match[str] | None:
        """Sign, currency and opening parenthesis before the digits: the longest that ends right there."""
        for start in range(max(floor, digits - _BACK), digits):
            found = _PREFIX.match(self.folded, start)
            if found and found.end() == digits and self._may_start(found):
                return found
        return None

    def _may_start(self, prefix: re.Match[str]) -> bool:
        """Whether what stands before lets the prefix be one: a minus behind a digit or letter is a hyphen."""
        start = prefix.start()
        if start == prefix.end() or self.folded[start] in (" ", GROUP_SPACE, "\n"):
            return False
        if prefix["sign"] and (prefix.end() - prefix.end("sign")) and not (prefix["symbol"] or prefix["code"]):
            return self.cell and prefix["sign"] != "+"  # "- 5": a sign in a cell, a dash in a text
        before = self.folded[start - 1 : start]
        hugged = before.isalnum() or before in (")", "%", ".", "-", DASH, "$")
        return not (hugged and (prefix["sign"] or prefix["open"] or prefix["code"]))

    def _currency(self, prefix: re.Match[str] | None) -> Unit:
        if prefix is None or not (prefix["symbol"] or prefix["code"]):
            return Unit()
        symbol = prefix["symbol"]
        if prefix["code"]:
            return Unit(prefix["code"].upper())
        named = {"$": self.reading.dollar, "¥": self.reading.yen}
        return Unit(named.get(symbol) or lx.SYMBOLS[symbol])

    def _in_words(self, start: int, end: int, value: int) -> Number:
        follows = suffix(self.folded, end, Unit())
        sign: Sign = "none"
        if word := _SIGN_WORD.search(self.folded, max(0, start - 12), start):
            sign, start, value = "word", word.start(), -value
        if follows.why:
            return self._made("unread", start, follows.end, follows.why)
        found = self._made("quantity", start, follows.end, "in words")
        return replace(found, amount=Decimal(value), scale=follows.scale, unit=follows.unit, sign=sign)

    def _characters(self, taken: bytearray) -> Iterator[Number]:
        """Characters that are numbers by themselves: ½ is exact, the others are told and not read."""
        for at, sign in enumerate(self.folded):
            if sign != NUMERIC or taken[at]:
                continue
            character = self.text[at]
            alone = not any(
                c.isalnum() or c == NUMERIC for c in self.folded[max(0, at - 1) : at] + self.folded[at + 1 : at + 2]
            )
            if alone and character in _FRACTIONS:
                follows = suffix(self.folded, at + 1, Unit())
                amount = Decimal(_FRACTIONS[character])
                made = self._made("quantity", at, follows.end)
                yield replace(made, amount=amount, scale=follows.scale, unit=follows.unit)
            else:
                yield self._made("unread", at, at + 1, "a numeral that is no digit")

    def _ranges(self, found: list[Number]) -> Iterator[Number]:
        """In "5-7 %" and "$3 to $5 million" the first number takes the scale and the unit of the second."""
        for at, number in enumerate(found):
            behind = found[at + 1] if at + 1 < len(found) else None
            if behind is not None and {number.kind, behind.kind} == {"quantity"}:
                between = self.folded[number.end : behind.start]
                bare = self._bare(number)
                if bare and _RANGE.fullmatch(between) and (behind.scale or behind.unit.name):
                    unit = number.unit if number.unit.name else behind.unit
                    if unit == behind.unit or number.unit.is_currency == behind.unit.is_currency:
                        number = replace(number, scale=behind.scale, unit=unit, note="range: as its other end")
            yield number

    def _bare(self, number: Number) -> bool:
        """Whether a number has no scale or unit behind its digits."""
        digits = [i for i in range(number.start, number.end) if self.folded[i].isdigit()]
        if not digits:
            return number.unit == Unit()
        return not suffix(self.folded, digits[-1] + 1, number.unit).own


def read_cell(text: str, reading: Reading = DEFAULT) -> Number | None:
    """Read a cell that holds a number and nothing else; None for any other cell.

    Parentheses, a minus behind the digits and a minus with a space are signs here; a year is a plain number.
    """
    scan = _Scan(text, reading, 0, cell=True)
    found = scan.numbers()
    if len(found) != 1:
        return None
    rest = scan.folded[: found[0].start] + scan.folded[found[0].end :]
    return found[0] if not rest.strip(f" \n{GROUP_SPACE}*") else None
