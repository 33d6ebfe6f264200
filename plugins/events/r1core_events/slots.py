"""Values for the slots of templates, made up: companies, people, amounts in several spellings, dates.

Names are put together from parts; any likeness to a real name is chance. Each split draws on names of its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from random import Random

from r1core_events.values import Money, listed

Value = str | Money | None
_HEADS = listed(
    "Nor Tarn Quill Har Cald Edd Fen Brack Hels Ost Wyn Mar Thorn Pell Ard Bel Cors Dun Elm Gar Hol Kest Lan Mel "
    "Orm Pen Rav Sel Tol Ulv Ven Wex Yar Zan Bryn Cras Drex Fal Glen Ick"
)
_TAILS = {
    "train": listed("vale mere row brook wick stead combe ridge worth by more den field crest"),
    "dev": listed("bury gate haven moor sted croft ling"),
    "test": listed("dale holm shaw thorpe ville mark minster quist"),
}
_TRADES = listed(
    "Industries Bank Foods Energy Therapeutics Holdings Group Software Logistics Mining Airlines Media "
    "Insurance Motors "
    "Semiconductors Pharma Stores Steel Chemicals Bancorp Partners Systems Technologies Resources Capital Properties "
    "Biosciences Brands Networks Materials"
)
_FORMS = ("", "", "", "", " Inc.", " Corp.", " plc", " Ltd.", " AG", " N.V.", " LLC", " Co.", ", Inc.")
_FIRST = listed("Ada Bruno Carla Dorian Elif Farid Greta Hugo Ines Jonas Kira Leon Mina Nils Olga Pavel Rosa Stefan")
_LAST = listed("Abelsen Brandic Corvo Dahlmann Esterly Fenwright Grunow Hallam Ilvane Jorrit Kemble Lindqvist Moreau")
_PLACES = listed(
    "Ohio Texas Singapore Brazil Poland Ontario Germany Mexico Vietnam Nevada Portugal Norway India Kenya Chile "
    "Scotland Louisiana Bavaria Queensland Quebec"
)
_GOODS = ("turbine blade", "glucose monitor", "delivery van", "battery pack", "frozen meal", "payment platform",
          "cancer drug", "security software", "infant formula", "lithium mine", "wind farm", "memory chip")  # fmt: skip
_COINED = ("Velarin", "Nexora 3", "Tramivo", "Oculine", "Corvex", "Zephyl", "Marivane", "Strata One")
_MONTHS = listed("January February March April May June July August September October November December")
_DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_QUARTERS = listed("first second third fourth")
_SCALES = {"million": 10**6, "billion": 10**9, "m": 10**6, "bn": 10**9, "mn": 10**6}
_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "USD ": "USD", "EUR ": "EUR", "US$": "USD", "GBP ": "GBP", "C$": "CAD"}


def company(random: Random, split: str) -> tuple[str, str]:
    """A company's name, and the same name without its legal form."""
    name = random.choice(_HEADS) + random.choice(_TAILS[split])
    if random.random() < 0.1:
        name = f"{random.choice(_HEADS)}{random.choice(_TAILS[split])} {name}"
    if random.random() < 0.85:
        name = f"{name} {random.choice(_TRADES)}"
    return name + random.choice(_FORMS), name


def amount(random: Random, split: str) -> tuple[str, Money]:
    """An amount of money as it may be spelled, and its exact value."""
    if random.random() < 0.08:
        number = f"{random.randint(1, 999)},{random.randint(0, 999):03d},000"
        return f"${number}", Money(Decimal(number.replace(",", "")), "USD")
    number = str(random.randint(2, 950)) if random.random() < 0.5 else f"{random.randint(1, 99)}.{random.randint(1, 9)}"
    if random.random() < 0.15:
        scale = random.choice(("million", "billion"))
        unit, currency = random.choice((("dollars", "USD"), ("euros", "EUR"), ("pounds", "GBP")))
        return f"{number} {scale} {unit}", Money(Decimal(number) * _SCALES[scale], currency)
    sign = random.choice(("$", "$", "$", "$", *_SIGNS))
    scale = random.choice(("million", "billion", "million", "billion", "m", "bn"))
    gap = " " if len(scale) > 2 else ""
    return f"{sign}{number}{gap}{scale}", Money(Decimal(number) * _SCALES[scale], _SIGNS[sign])


def date(random: Random, split: str) -> tuple[str, str]:
    """A day as it may be spelled, and its value as `dates.py` writes it."""
    day = datetime.date(2018, 1, 1) + datetime.timedelta(days=random.randrange(3000))
    month = _MONTHS[day.month - 1]
    form = random.randrange(7)
    if form == 0:
        return (name := random.choice(_DAYS)), name
    if form == 1:
        return f"{month} {day.day}", f"--{day.month:02d}-{day.day:02d}"
    if form == 2:
        return f"{day.day} {month} {day.year}", day.isoformat()
    if form == 3:
        return f"{month[:3]}. {day.day}, {day.year}" if len(
            month
        ) > 4 else f"{month} {day.day}, {day.year}", day.isoformat()
    return f"{month} {day.day}, {day.year}", day.isoformat()


def period(random: Random, split: str) -> tuple[str, str]:
    """A quarter, and its value as `dates.py` writes it."""
    number = random.randrange(4)
    if random.random() < 0.3:
        year = random.randint(2018, 2026)
        return f"{_QUARTERS[number]} quarter of {year}", f"{year}-Q{number + 1}"
    return f"{_QUARTERS[number]} quarter", f"Q{number + 1}"


def _percent(random: Random, split: str) -> tuple[str, Value]:
    number = f"{random.randint(1, 40)}.{random.randint(1, 9)}" if random.random() < 0.6 else str(random.randint(2, 60))
    return number + random.choice(("%", "%", "%", " percent", " per cent")), None


def _number(random: Random, split: str) -> tuple[str, Value]:
    return f"{random.choice((random.randint(2, 99), random.randint(100, 90_000))):,}", None


def _person(random: Random, split: str) -> tuple[str, Value]:
    return f"{random.choice(_FIRST)} {random.choice(_LAST)}", None


def _product(random: Random, split: str) -> tuple[str, Value]:
    return random.choice(_GOODS if random.random() < 0.5 else _COINED), None


def _place(random: Random, split: str) -> tuple[str, Value]:
    return random.choice(_PLACES), None


FILLERS: dict[str, Callable[[Random, str], tuple[str, Value]]] = {
    "company": company,
    "other": company,
    "amount": amount,
    "date": date,
    "period": period,
    "percent": _percent,
    "number": _number,
    "person": _person,
    "product": _product,
    "place": _place,
}
