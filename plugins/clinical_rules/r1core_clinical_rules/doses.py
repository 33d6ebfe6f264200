"""Doses in free text: number, unit, how often, and which drug they belong to. Reads a folded text.

Where a number can be read in two ways the larger one is taken ("1,000" and "1 000" are a thousand). What cannot be
compared (dosage forms, concentrations, unknown units) is told as such, so that the caller fails closed. English only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from r1core_clinical_rules.units import Quantity, UnitError, exact_decimal, unit

REACH = 200  # characters behind a drug's name in which a dose belongs to it
_WORDS = ("half", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_VALUES = {word: Decimal(max(i, 0)) for i, word in enumerate(_WORDS)} | {"half": Decimal("0.5")}
_NUMBER = (
    r"(?:(?:\d+[ -])?\d+ ?[\u2044/] ?\d+(?![\d/])|\d+(?:\.\d+)?e[+-]?\d+|\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?"
    r"|\d+(?:[.,]\d+)?|\.\d+|" + "|".join(_WORDS) + r")(?![\d.]*\d)"
)
_UNIT = r"[a-z%]+(?: ?/ ?[a-z]+| per (?:kg|kilograms?|days?|hours?|h|min|minutes?|ml|dose)\b)*"
_FORMS = (
    "tablets?|tabs?|capsules?|caps|pills?|puffs?|drops?|spoons?|spoonfuls?|teaspoons?|tablespoons?|tsp|tbsp|vials?|"
    "ampoules?|amps?|patch|patches|suppository|suppositories|sachets?|scoops?|cc|cups?|inhalations?|sprays?"
)
_TIMES = rf"(?:(?P<times>\d+|{'|'.join(_WORDS)}) ?(?:x|×|\*|times|(?:{_FORMS}) of) ?)?"
_DOSE = re.compile(
    rf"(?<![a-z0-9.]){_TIMES}(?P<low>{_NUMBER})(?: ?(?:-|–|—|to|or) ?(?P<high>{_NUMBER}))?[ -]?(?P<unit>{_UNIT})"
    r"(?: ?[x×*] ?(?P<after>\d+)(?! ?(?:d|days?|weeks?|h|hours?|doses?)\b))?"
)
_FORM = re.compile(rf"(?<![a-z0-9.])(?:{_NUMBER})[ -]?(?:{_FORMS})\b")
_BARE = re.compile(rf"[\s:=(,-]*(?P<low>{_NUMBER})(?P<rest>[^\n]{{0,24}})")
_HARMLESS = re.compile(r" ?(?:times|x\b|%|days?\b|hours?\b|weeks?\b|months?\b|years?\b|or more\b|st\b|nd\b|rd\b|th\b)")
_COUNT = r"(?P<count>\d+|once|twice|thrice|" + "|".join(_WORDS) + ")"
_OFTEN = (
    re.compile(rf"{_COUNT} ?(?:times|x|×|doses?)? ?(?:/|a|per|each|every)? ?(?:24 ?h(?:ours?)?|days?|daily|d)\b"),
    re.compile(rf"{_COUNT} (?:times|doses?) (?:in|within|over) 24 ?h(?:ours?)?\b"),
)
_EVERY = re.compile(r"(?:\bq ?|every )(?P<hours>\d+)(?: ?(?:-|–|to) ?\d+)? ?(?:h\b|hrs?\b|hours?\b|hourly\b)")
_HOURLY = re.compile(r"\b(?P<hours>\d+)[ -]?hourly\b")
_LATIN = re.compile(r"\b(?:q\.?d|o\.?d|b\.?i\.?d|b\.?d|t\.?i\.?d|t\.?d\.?s|q\.?i\.?d|q\.?d\.?s)\b\.?")
_LATIN_COUNT = {"qd": 1, "od": 1, "bid": 2, "bd": 2, "tid": 3, "tds": 3, "qid": 4, "qds": 4}
_DAILY = re.compile(r"\b(?:daily|every day|each day|a day|per day|/ ?day|nightly|at night|every morning|once)\b")
_ENDLESS = Decimal(10) ** 30  # a fraction over zero: above every cap
_COUNTS = {"once": 1, "twice": 2, "thrice": 3} | {word: i for i, word in enumerate(_WORDS)}


@dataclass(frozen=True, slots=True)
class Dose:
    """One dose in a text, at `start` to `end` of the folded text.

    `amount` : of one dose, None where it cannot be compared. `per_day` : of one day, None where the text does not say
    how often.
    """

    start: int
    end: int
    amount: Quantity | None
    per_day: Quantity | None = None


def doses_in(text: str, starts: Sequence[int]) -> list[Dose]:
    """Every dose in a folded text, and what stands like one right behind a drug's name (which end at `starts`)."""
    found: list[Dose] = []
    matches = [match for match in _DOSE.finditer(text) if _is_dose(match, starts)]
    for i, match in enumerate(matches):
        behind = text[match.end() : matches[i + 1].start() if i + 1 < len(matches) else match.end() + 60][:60]
        found.append(_dose(match, _per_day(behind)))
    taken = [(dose.start, dose.end) for dose in found]
    for match in _FORM.finditer(text):
        if not any(start <= match.start() < end for start, end in taken):
            found.append(Dose(match.start(), match.end(), None))
    for at in starts:  # "drug 500", "drug 3 spoonfuls": a number that nothing explains
        bare = _BARE.match(text, at)
        if bare and not _HARMLESS.match(bare["rest"]):
            place = bare.start("low")
            if not any(dose.start <= place < dose.end for dose in found):
                found.append(Dose(place, bare.end("low"), None))
    return sorted(found, key=lambda dose: dose.start)


def _is_dose(match: re.Match[str], starts: Sequence[int]) -> bool:
    """Whether number and unit are an amount: no time, no share, no weight of a person."""
    try:
        measures = unit(match["unit"]).measures
    except UnitError:
        return re.fullmatch(_FORMS, match["unit"]) is not None
    if measures in ((("time", 1),), (("percent", 1),)):
        return False
    kilograms = match["unit"].strip() in ("kg", "kgs", "kilogram", "kilograms")
    close = any(0 <= match.start() - at <= 3 for at in starts)
    return not kilograms or close or _value(match["low"]) < 1


def _dose(match: re.Match[str], per_day: Fraction | None) -> Dose:
    try:
        measured = unit(match["unit"])
    except UnitError:  # a dosage form
        return Dose(match.start(), match.end(), None)
    highest = max(_value(match["low"]), _value(match["high"]) if match["high"] else Decimal(0))
    for count in (match["times"], match["after"]):
        highest *= _value(count) if count else 1
    amount = Quantity(highest, measured)
    if measured.over("time"):
        return Dose(match.start(), match.end(), None, _of_a_day(amount))
    daily = None if per_day is None else _scaled(amount, per_day)
    return Dose(match.start(), match.end(), amount, daily)


def _value(text: str) -> Decimal:
    """The number, in its larger reading."""
    if text in _VALUES:
        return _VALUES[text]
    fraction = re.fullmatch(r"(?:(\d+)[ -])?(\d+) ?[\u2044/] ?(\d+)", text)
    if fraction:
        whole, above, below = (int(g or 0) for g in fraction.groups())
        with localcontext() as context:
            context.prec = 50
            return whole + Decimal(above) / Decimal(below) if below else _ENDLESS
    if re.fullmatch(r"\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?", text):
        return Decimal(re.sub("[, ]", "", text))
    return Decimal(text.replace(",", "."))


def _scaled(amount: Quantity, count: Fraction) -> Quantity | None:
    try:
        return Quantity(exact_decimal(Fraction(amount.value) * count), amount.unit)
    except (UnitError, OverflowError):
        return None


def _of_a_day(rate: Quantity) -> Quantity | None:
    """A rate such as 4 g/day or 2 mg/kg/h as the amount of a day."""
    parts = [p.strip() for p in rate.unit.name.replace(" per ", "/").split("/")]
    kept = [parts[0], *(p for p in parts[1:] if unit(p).measures != (("time", 1),) or p == "kg")]
    times = [unit(p) for p in parts[1:] if p != "kg" and unit(p).measures == (("time", 1),)]
    if len(times) != 1:
        return None
    return _scaled(Quantity(rate.value, unit("/".join(kept))), 1 / times[0].factor)


def _per_day(behind: str) -> Fraction | None:
    """How many doses a day the text says there are, the most of its readings; None where it does not say."""
    found = [Fraction(24, int(m["hours"])) for p in (_EVERY, _HOURLY) for m in p.finditer(behind) if int(m["hours"])]
    for pattern in _OFTEN:
        for match in pattern.finditer(behind):
            count = match["count"]
            found.append(Fraction(_COUNTS.get(count, 0) or int(count) if count.isdigit() else _COUNTS[count]))
    found += [Fraction(_LATIN_COUNT[m[0].replace(".", "")]) for m in _LATIN.finditer(behind)]
    if not found and _DAILY.search(behind):
        found = [Fraction(1)]
    return max(found, default=None)
