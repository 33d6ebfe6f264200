"""Writing an exact value: the only place where anything is rounded, by a stated mode, from the rational number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal, get_args

from r1core.api import JSON, UserError
from r1core_numeric.lexicon import SYMBOLS
from r1core_numeric.values import Number, Unit

Rounding = Literal["half_up", "half_even", "down"]
Style = Literal["auto", "plain", "percent", "basis_point", "multiple", "currency"]
SCALES = {"": 0, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SIGNS = {code: sign for sign, code in reversed(SYMBOLS.items()) if len(sign) == 1}


@dataclass(frozen=True, slots=True)
class Format:
    """How a result is written.

    Parameters
    ----------
    style : `auto` takes the unit of the result: a percent sign for a percentage, a currency sign for money.
    places : digits behind the point; None = all of a finite decimal, two of any other number.
    rounding : `half_up` (away from zero, as in accounting), `half_even`, `down` (towards zero).
    scale : "", `thousand`, `million`, `billion` or `trillion`.
    group : commas between thousands.
    trim : leave out zeros at the end.
    negative : a minus, or accounting's parentheses.
    """

    style: Style = "auto"
    places: int | None = None
    rounding: Rounding = "half_up"
    scale: str = ""
    group: bool = True
    trim: bool = False
    negative: Literal["minus", "parentheses"] = "minus"


@dataclass(frozen=True, slots=True)
class Written:
    """A value as text, and the number that the text says: rounded, so that it can be held against the text."""

    text: str
    number: Number


def rounded(value: Fraction, places: int, mode: Rounding) -> Decimal:
    """The value to so many decimal places, exactly by the mode; no binary or decimal approximation comes between."""
    scaled = abs(value) * 10**places
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest - scaled.denominator
    if mode == "half_up":
        whole += twice >= 0
    elif mode == "half_even":
        whole += twice > 0 or (twice == 0 and whole % 2 == 1)
    return Decimal((int(value < 0 and whole > 0), tuple(map(int, str(whole))), -places))


def places_of(value: Fraction) -> int | None:
    """How many decimal places write the value exactly; None where none do."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def write(value: Fraction, unit: Unit, form: Format) -> Written:
    """Write a value that counts in `unit` (a pure number: 0.05 for five percent).

    Raises
    ------
    UserError : where the style does not fit the unit (money as a percentage).
    """
    shown = _shown(unit, form)
    power = SCALES[form.scale] + shown.power
    exact = value / Fraction(10) ** power
    found = places_of(exact)
    places = form.places if form.places is not None else 2 if found is None or found > 30 else found
    amount = rounded(exact, places, form.rounding)
    if form.trim:
        amount = _trimmed(amount)
    digits = f"{amount.copy_abs():,f}" if form.group else f"{amount.copy_abs():f}"
    text = _dressed(digits, amount < 0, shown, form)
    number = Number(text, 0, len(text), "quantity", amount, SCALES[form.scale], shown)
    return Written(text, number)


def _trimmed(amount: Decimal) -> Decimal:
    """Without zeros at the end; not by `normalize`, which rounds to the context's precision."""
    text = f"{amount:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def _shown(unit: Unit, form: Format) -> Unit:
    """The unit in which a value is written.

    Raises
    ------
    UserError : where the style does not fit.
    """
    pure = unit.name in ("pure", "percent", "basis_point", "multiple")
    if form.style == "auto" or (form.style == "currency" and unit.is_currency):
        return Unit() if unit.name == "pure" else unit
    if form.style == "plain":
        return Unit()
    if form.style != "currency" and (pure or unit == Unit()):
        return Unit(form.style)
    raise UserError(f"a result in {unit} cannot be written as `{form.style}`", fix="change the program's format.style")


def _dressed(digits: str, negative: bool, unit: Unit, form: Format) -> str:
    behind = f" {form.scale}" if form.scale else ""
    before = ""
    if unit.is_currency:
        before = _SIGNS.get(unit.name, f"{unit.name} ")
    behind += {"percent": "%", "basis_point": " bp", "multiple": "x"}.get(unit.name, "")
    if unit.per:
        behind += f" per {unit.per}"
    if unit.name and not unit.is_currency and unit.name not in ("percent", "basis_point", "multiple", "pure"):
        behind += f" {unit.name}" + ("" if digits == "1" else "s")
    if negative and form.negative == "parentheses":
        return f"({before}{digits}{behind})" if behind in ("", "%", "x") else f"({before}{digits}){behind}"
    return f"{'-' if negative else ''}{before}{digits}{behind}"


def format_from_json(found: JSON, where: str) -> Format:
    """Read a format.

    Raises
    ------
    UserError : for an unknown key or value.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"{where}: found {type(found).__name__}, expected a JSON object")
    allowed: dict[str, tuple[JSON, ...]] = {
        "style": get_args(Style), "rounding": get_args(Rounding), "scale": tuple(SCALES),
        "negative": ("minus", "parentheses"), "group": (True, False), "trim": (True, False),
        "places": (None, *range(31)),
    }  # fmt: skip
    for key, value in found.items():
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}, expected {', '.join(allowed)}")
        if not any(value is one or (value == one and type(value) is type(one)) for one in allowed[key]):
            expected = "0 to 30 or null" if key == "places" else ", ".join(map(repr, allowed[key]))
            raise UserError(f"{where}.{key}: found {value!r}, expected {expected}")
    return Format(**found)


def format_to_json(form: Format) -> JSON:
    """The JSON form of a format."""
    keys = ("style", "places", "rounding", "scale", "group", "trim", "negative")
    return {key: getattr(form, key) for key in keys}
