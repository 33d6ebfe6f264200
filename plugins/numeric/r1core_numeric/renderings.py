"""Every way in which a value may be written in an answer: exact, with the same unit, in another scale or grouping.

For 1,234,500 USD among others: 1234500, $1,234,500, $1,234,500.00, 1.2345 million, $1.2345 million, USD 1,234.5
thousand, 1,234,500 dollars. For -5 %: -5%, (5)%, -5.0 percent, -500 bp. Nothing is rounded, no unit is added, no sign
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from r1core_numeric.claims import Allowed, Claim
from r1core_numeric.formats import places_of
from r1core_numeric.lexicon import CODES, CURRENCY_WORDS, SYMBOLS
from r1core_numeric.values import MEASURES, Unit

SCALES = {0: ("",), 3: (" thousand", "k"), 6: (" million", " mn", "mn", "m"), 9: (" billion", " bn", "bn", "b"),
          12: (" trillion", " tn", "tn")}  # fmt: skip
UNITS = {
    "percent": ("%", " %", " percent", " per cent"),
    "basis_point": (" bp", "bp", " bps", "bps", " basis points"),
    "multiple": ("x", " times"),
}
MOST_PLACES = 6  # of a number written in another scale than its own


@dataclass(frozen=True, slots=True)
class Form:
    """A class of renderings that differ in their digits only: sign, unit and scale."""

    negative: bool
    unit: Unit
    scale: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the digits of a form."""

    lead: str
    suffix: str


def forms(claim: Claim, may: Allowed) -> Iterator[tuple[Form, str]]:
    """Yield each form of a claim with each spelling of its digits."""
    for unit in _units(claim.unit, may.currency):
        for scale in SCALES if unit.name not in UNITS else (0,):
            magnitude = abs(claim.value) / Fraction(10) ** (scale + unit.power)
            places = places_of(magnitude)
            if places is None or (scale and scale != claim.number.scale and (magnitude < 1 or places > MOST_PLACES)):
                continue
            negative = claim.value < 0
            for digits in set(_digits(magnitude, places, claim)):
                yield Form(negative, unit, scale), digits
                if negative and may.absolute:
                    yield Form(False, unit, scale), digits


def _units(unit: Unit, currency: str) -> Iterator[Unit]:
    if unit.name in ("percent", "basis_point"):
        yield from (Unit("percent"), Unit("basis_point"))
    elif unit.name == "pure":
        yield Unit()
    else:
        yield unit
        if unit == Unit() and currency:
            yield Unit(currency)


def _digits(magnitude: Fraction, places: int, claim: Claim) -> Iterator[str]:
    """The digits with and without commas, and with zeros behind the point to one place, two, or as spelled."""
    assert claim.number.amount is not None
    own = -int(claim.number.amount.as_tuple().exponent)
    whole = Decimal(magnitude.numerator * 10**places // magnitude.denominator)
    sign, figures, _ = whole.as_tuple()
    exact = Decimal((sign, figures, -places))
    for wanted in {places, 1, 2, own}:
        if wanted >= places:
            zeros = "0" * (wanted - places)
            for text in (f"{exact:f}", f"{exact:,f}"):
                yield f"{text}{'.' if zeros and not places else ''}{zeros}"


def frames(form: Form) -> Iterator[Frame]:
    """Yield what may stand before and behind the digits of a form."""
    plain = SCALES[form.scale]
    if form.unit.name in UNITS:
        for behind in (*UNITS[form.unit.name], *([""] if form.unit.name == "multiple" else [])):
            yield from _signed(form.negative, "", behind, brackets=behind != "")
        return
    for behind in plain:
        yield from _signed(form.negative, "", behind, brackets=form.scale > 0)
        if form.unit.is_currency:
            for before in _before(form.unit.name):
                yield from _signed(form.negative, before, behind, brackets=True)
            if behind == "" or behind.startswith(" "):
                for word in _behind(form.unit.name):
                    yield from _signed(form.negative, "", f"{behind} {word}", brackets=False)
        elif form.unit.name in MEASURES and (behind == "" or behind.startswith(" ")):
            for word in (form.unit.name, f"{form.unit.name}s"):
                yield from _signed(form.negative, "", f"{behind} {word}", brackets=False)


def _signed(negative: bool, before: str, behind: str, *, brackets: bool) -> Iterator[Frame]:
    if not negative:
        yield Frame(before, behind)
        yield Frame(f"+{before}", behind)
        return
    yield Frame(f"-{before}", behind)
    if before:
        yield Frame(f"{before}-", behind)
    if brackets:
        yield Frame(f"({before}", f"{behind})")
        if behind:
            yield Frame(f"({before}", f"){behind}")
        if before:
            yield Frame(f"{before}(", f"){behind}")


def _before(code: str) -> Iterator[str]:
    yield from (sign for sign, named in SYMBOLS.items() if named == code)
    if code in CODES:
        yield from (f"{code.lower()} ", code.lower())


def _behind(code: str) -> Iterator[str]:
    yield from (word for word, named in CURRENCY_WORDS.items() if named == code)
    if code in CODES:
        yield code.lower()
