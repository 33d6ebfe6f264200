"""What an answer may say: the numbers of the input and the results of programs; and whether a finished text keeps to
it.

`provenance` reads the text with the reader and shares no code with the automaton that made it, so that either finds
what the other misses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from r1core_numeric.execute import Result
from r1core_numeric.reader import DEFAULT, Reading, read
from r1core_numeric.symbols import fold
from r1core_numeric.values import MEASURES, Number, Unit

_YEARS = re.compile(r"(?<!\d)(?:1[5-9]|2[01])\d\d(?!\d)")
_MARKS = re.compile(r"^[(\[]|[.)\]]$")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that may be stated, and where it comes from: a slot (its index) or a result (its name)."""

    value: Fraction
    unit: Unit
    source: int | str
    place: str
    number: Number


@dataclass(frozen=True, slots=True)
class Allowed:
    """Everything that an answer may state.

    Parameters
    ----------
    claims : values, in any of their renderings.
    literals : spellings of the input that are allowed as they stand, folded and with single spaces, each with its
        number: dates, names with digits, numbers that could not be read.
    absolute : whether a negative value may be stated without its sign ("fell by 12 %").
    currency : money in which numbers without a unit may be stated, or "".
    """

    claims: tuple[Claim, ...]
    literals: tuple[tuple[str, Number], ...]
    absolute: bool = False
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """A number of an answer with the claims or the literal that it rests on; none where it has no provenance."""

    number: Number
    sources: tuple[str, ...]


def normal(text: str) -> str:
    """A spelling as it is compared: folded, with single spaces."""
    return _SPACE.sub(" ", fold(text).replace("\u00a0", " ")).strip()


def allowed(
    slots: Sequence[Number], results: Sequence[Result] = (), *, absolute: bool = False, currency: str = ""
) -> Allowed:
    """What an answer to an input with these numbers may state, these results included.

    A result counts as what its format writes: the rounded number.
    """
    claims = [
        Claim(slot.fraction, slot.unit, at, slot.place(), slot)
        for at, slot in enumerate(slots)
        if slot.kind == "quantity"
    ]
    for done in results:
        number = done.written.number
        claims.append(Claim(number.fraction, number.unit, done.name, f"result {done.name}", number))
    literals: dict[str, Number] = {}
    for slot in slots:
        if slot.stated and not slot.note.startswith("range"):
            literals.setdefault(normal(slot.text), slot)
        if slot.kind in ("date", "label"):
            for year in _YEARS.findall(fold(slot.text)) if slot.kind == "date" else ():
                literals.setdefault(year, slot)
    return Allowed(tuple(claims), tuple(literals.items()), absolute, currency)


def supports(claim: Claim, number: Number, may: Allowed) -> bool:
    """Whether a number that was read says what a claim says: the same value, in a unit that the claim has.

    Leaving the unit of money or a measure out says less and is allowed; stating one that the input does not is not.
    """
    if number.amount is None:
        return False
    value, unit, own = number.fraction, number.unit, claim.unit
    if value != claim.value and not (may.absolute and claim.value < 0 and value == -claim.value):
        return False
    if unit.per and unit.per != own.per:
        return False
    if unit.name == own.name or unit.name == "":
        return True
    if {unit.name, own.name} == {"percent", "basis_point"}:
        return True
    unstated = own.name in ("", "pure")
    if unstated and (unit.name == may.currency or unit.name in MEASURES):
        return own.name == "" or not unit.is_currency
    return False


def provenance(text: str, may: Allowed, reading: Reading = DEFAULT) -> tuple[Origin, ...]:
    """Read every number of a text and say where it comes from; those without sources have no provenance."""
    literals = dict(may.literals)
    found = []
    for number in read(text, reading):
        sources = [f"{c.place}: {c.number.text}" for c in may.claims if supports(c, number, may)]
        if not sources:
            bare = _MARKS.sub("", fold(number.text)) if number.kind in ("year", "label") else ""
            sources = [f"{c.place}: {c.number.text}" for c in may.claims if bare.isdigit() and _counts(c, bare)]
        spelled = literals.get(normal(number.text))
        if spelled is not None and (number.kind == spelled.kind or number.kind != "quantity"):
            sources.append(f"{spelled.place()}: {spelled.text}")
        found.append(Origin(number, tuple(dict.fromkeys(sources))))
    return tuple(found)


def _counts(claim: Claim, digits: str) -> bool:
    """Whether plain digits say a claim: 2,019 without its comma looks like a year, "5." like the mark of a list."""
    return claim.value == int(digits) and claim.unit.name not in ("percent", "basis_point", "multiple")


def unsupported(text: str, may: Allowed, reading: Reading = DEFAULT) -> tuple[Number, ...]:
    """The numbers of a text that have no provenance."""
    return tuple(origin.number for origin in provenance(text, may, reading) if not origin.sources)
