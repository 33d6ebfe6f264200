"""Quantities with units, compared and converted exactly: `Decimal` in, rational arithmetic, no float anywhere.

An unknown unit is an error, never a guess: whoever asks fails closed. Not covered: conversions that need to know the
substance (mg/dL to mmol/L), temperatures, and units that differ in case only (`MU`, `mU`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

BODY = "body weight"  # what `kg` means below a line: mg/kg is per kilogram of the patient
SURFACE = "1.73 m2"

# Name -> (what it measures, how many of the base). Bases: g, L, day, mol, and one for each that nothing converts to.
_UNITS: dict[str, tuple[str, Fraction]] = {
    "kg": ("mass", Fraction(1000)), "g": ("mass", Fraction(1)), "gram": ("mass", Fraction(1)),
    "mg": ("mass", Fraction(1, 10**3)), "milligram": ("mass", Fraction(1, 10**3)),
    "mcg": ("mass", Fraction(1, 10**6)), "μg": ("mass", Fraction(1, 10**6)), "ug": ("mass", Fraction(1, 10**6)),
    "microgram": ("mass", Fraction(1, 10**6)), "ng": ("mass", Fraction(1, 10**9)), "pg": ("mass", Fraction(1, 10**12)),
    "kilogram": ("mass", Fraction(1000)), "nanogram": ("mass", Fraction(1, 10**9)),
    "l": ("volume", Fraction(1)), "dl": ("volume", Fraction(1, 10)), "cl": ("volume", Fraction(1, 100)),
    "ml": ("volume", Fraction(1, 10**3)), "μl": ("volume", Fraction(1, 10**6)), "ul": ("volume", Fraction(1, 10**6)),
    "liter": ("volume", Fraction(1)), "litre": ("volume", Fraction(1)), "milliliter": ("volume", Fraction(1, 10**3)),
    "millilitre": ("volume", Fraction(1, 10**3)),
    "mol": ("amount", Fraction(1)), "mmol": ("amount", Fraction(1, 10**3)), "μmol": ("amount", Fraction(1, 10**6)),
    "umol": ("amount", Fraction(1, 10**6)), "nmol": ("amount", Fraction(1, 10**9)),
    "pmol": ("amount", Fraction(1, 10**12)),
    "eq": ("equivalents", Fraction(1)), "meq": ("equivalents", Fraction(1, 10**3)),
    "unit": ("units", Fraction(1)), "u": ("units", Fraction(1)), "iu": ("international units", Fraction(1)),
    "min": ("time", Fraction(1, 1440)), "minute": ("time", Fraction(1, 1440)), "h": ("time", Fraction(1, 24)),
    "hr": ("time", Fraction(1, 24)), "hour": ("time", Fraction(1, 24)), "d": ("time", Fraction(1)),
    "day": ("time", Fraction(1)), "24h": ("time", Fraction(1)), "wk": ("time", Fraction(7)),
    "week": ("time", Fraction(7)),
    "s": ("time", Fraction(1, 86400)), "sec": ("time", Fraction(1, 86400)), "second": ("time", Fraction(1, 86400)),
    # Calendar units: a mean Gregorian year has 365.2425 days, a month a twelfth of it.
    "year": ("time", Fraction(3652425, 10000)), "a": ("time", Fraction(3652425, 10000)),
    "month": ("time", Fraction(3652425, 120000)), "mo": ("time", Fraction(3652425, 120000)),
    "%": ("percent", Fraction(1)), "mmhg": ("pressure", Fraction(1)), "10*9": ("count", Fraction(10**9)),
    "10*3": ("count", Fraction(10**3)), "10*6": ("count", Fraction(10**6)), "10*12": ("count", Fraction(10**12)),
    SURFACE: (SURFACE, Fraction(1)),
}  # fmt: skip
_PLURAL = re.compile(r"(?<=[a-zμ]{3})s$")  # "units", "days", never "s" itself
_NUMBER = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*(.*)", re.DOTALL)
_SURFACE = re.compile(r"/\s*\{?1\.73[\s_]*(?:m2|m\^2|m\*2)\}?")
_ANNOTATION = re.compile(r"[\[\]]")  # UCUM writes [IU] and mm[Hg]


class UnitError(ValueError):
    """A text is no quantity, its unit is unknown, or two units measure different things."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit measures and how much of the base it is: `mg/kg` measures (mass, 1), (body weight, -1)."""

    name: str
    measures: tuple[tuple[str, int], ...]
    factor: Fraction

    def over(self, kind: str) -> bool:
        """Whether the unit is per something: `Unit("mg/kg/day").over("time")`."""
        return any(k == kind and power < 0 for k, power in self.measures)


@lru_cache(maxsize=1024)
def unit(name: str) -> Unit:
    """The unit of this name, `mg`, `mg/kg/day` or `mL/min/1.73m2`; case does not matter.

    Raises
    ------
    UnitError : where a part of the name is unknown.
    """
    spelled = _ANNOTATION.sub("", unicodedata.normalize("NFKC", name).casefold()).strip()
    spelled = _SURFACE.sub(f"/{SURFACE}", re.sub(r"\s+per\s+", "/", spelled))
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for place, part in enumerate(spelled.split("/")):
        measure, size = _part(part.strip(), name, below=place > 0)
        powers[measure] = powers.get(measure, 0) + (-1 if place else 1)
        factor = factor / size if place else factor * size
    measures = tuple(sorted((kind, power) for kind, power in powers.items() if power))
    return Unit(name.strip(), measures, factor)


def _part(part: str, name: str, *, below: bool) -> tuple[str, Fraction]:
    if below and part in ("kg", "kilogram"):
        return BODY, Fraction(1)
    found = _UNITS.get(part) or _UNITS.get(_PLURAL.sub("", part))
    if found is None:
        raise UnitError(f"the unknown unit {name!r}")
    return found


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount of a unit, `Quantity(Decimal("0.5"), unit("mg"))`."""

    value: Decimal
    unit: Unit
    base: Fraction = field(init=False, repr=False, compare=False)  # the amount in base units

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", Fraction(self.value) * self.unit.factor)

    def __str__(self) -> str:
        return f"{self.value} {self.unit.name}"

    def comparable(self, other: Quantity | Unit) -> bool:
        """Whether both measure the same."""
        measures = other.measures if isinstance(other, Unit) else other.unit.measures
        return self.unit.measures == measures

    def compare(self, other: Quantity) -> int:
        """-1, 0 or 1 as this is less than, equal to or more than the other, exactly.

        Raises
        ------
        UnitError : where they measure different things.
        """
        if not self.comparable(other):
            raise UnitError(f"{self.unit.name} and {other.unit.name} do not measure the same")
        mine, theirs = self.base, other.base
        left, right = mine.numerator * theirs.denominator, theirs.numerator * mine.denominator
        return (left > right) - (left < right)

    def to(self, name: str) -> Decimal:
        """The amount in another unit of the same measure, exactly.

        Raises
        ------
        UnitError : where it measures something else, or the amount has no finite decimal expansion in it.
        """
        target = unit(name)
        if not self.comparable(target):
            raise UnitError(f"{self.unit.name} and {name} do not measure the same")
        return exact_decimal(self.base / target.factor, name)

    def times_weight(self, weight: Quantity) -> Quantity:
        """The amount for a patient of this weight: `10 mg/kg` at `70 kg` is `700 mg`."""
        first, *below = re.sub(r"\s+per\s+", "/", self.unit.name).split("/")
        rest = "/".join([first, *(p for p in below if p.strip().casefold() not in ("kg", "kilogram"))])
        return Quantity(exact_decimal(Fraction(self.value) * weight.base / 1000, rest), unit(rest))


def exact_decimal(value: Fraction, name: str = "a decimal") -> Decimal:
    """The fraction as a decimal number, exactly.

    Raises
    ------
    UnitError : where it has no finite decimal expansion.
    """
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        raise UnitError(f"{value} is no finite decimal number of {name}")
    places = max(twos, fives)
    digits = value.numerator * 2 ** (places - twos) * 5 ** (places - fives)
    return Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), -places))


@lru_cache(maxsize=4096)
def quantity(text: str, default: str = "") -> Quantity:
    """Read `"0.5 mg/kg"`; `default` is the unit where the text names none.

    Raises
    ------
    UnitError : for what is no plain decimal number, a missing or an unknown unit.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r}, which is no number with a unit such as '0.5 mg'")
    name = match[2].strip() or default
    if not name:
        raise UnitError(f"{text!r} without a unit")
    return Quantity(Decimal(match[1]), unit(name))


def plain(value: object) -> str:
    """A number out of JSON or YAML as the decimal text that it was written as.

    Raises
    ------
    UnitError : for anything that is no finite number and no text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise UnitError(f"{value!r}, which is no number")
    if isinstance(value, str):
        return value
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise UnitError(f"{value!r}, which is no finite number")
    return f"{number:f}"
