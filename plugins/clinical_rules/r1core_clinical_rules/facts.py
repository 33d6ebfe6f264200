"""What is known of a patient: every fact is a value or unknown, and a list says whether it is complete.

Keys of the facts object (all optional; other keys are left to other plugins): `as_of`, `birth_date`, `age`, `sex`,
`weight`, `pregnancy`, `lactation`, `medications`, `allergies`, `conditions`, `labs`, `egfr`, `overrides`. What is there
and cannot be read is an error; what is absent is unknown.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from r1core.api import JSON, UserError
from r1core_clinical_rules.logic import Truth
from r1core_clinical_rules.units import Quantity, UnitError, plain, quantity, unit

LISTS = ("medications", "allergies", "conditions")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Listed:
    """Entries of one of the patient's lists, each by all its names; `complete` where nothing else can be on it."""

    entries: tuple[tuple[str, ...], ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value with its day; `formula` for an estimated filtration rate."""

    name: str
    value: Quantity
    date: datetime.date | None = None
    formula: str | None = None


@dataclass(frozen=True, slots=True)
class Overriding:
    """A person sets a rule aside for this patient."""

    rule: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Patient:
    """The facts that rules read; None and incomplete lists are unknown, never absent."""

    as_of: datetime.date | None = None
    age: Quantity | None = None
    sex: str | None = None
    weight: Quantity | None = None
    pregnancy: Truth = None
    trimester: int | None = None
    lactation: Truth = None
    medications: Listed = field(default_factory=Listed)
    allergies: Listed = field(default_factory=Listed)
    conditions: Listed = field(default_factory=Listed)
    labs: tuple[Measurement, ...] = ()
    egfr: tuple[Measurement, ...] = ()
    overrides: tuple[Overriding, ...] = ()


def patient_from(facts: Mapping[str, JSON] | None, where: str, as_of: str | None = None) -> Patient:
    """Read the facts of a patient; `where` names their origin in errors, `as_of` is their day where they name none.

    Raises
    ------
    UserError : for a fact that is there and cannot be read; reading it half would pass for known.
    """
    if not facts:
        return Patient()
    reader = _Reader(facts, where)
    day = reader.read("as_of", _date, "a day such as 2026-11-26") or (_date(as_of[:10]) if as_of else None)
    birth = reader.read("birth_date", _date, "a day such as 1950-01-31")
    age = reader.read("age", lambda v: _positive(v, "years", "time"), "years, or a text such as '6 months'")
    if age is None and birth is not None and day is not None:
        age = age_at(birth, day)
    pregnancy = reader.read("pregnancy", _pregnancy, 'true, false or {"trimester": 2}') or (None, None)
    return Patient(
        as_of=day,
        age=age,
        sex=reader.read("sex", _sex, '"female", "male", or another text, which counts as unknown'),
        weight=reader.read("weight", lambda v: _positive(v, "kg", "mass"), "kilograms, or a text such as '3500 g'"),
        pregnancy=pregnancy[0],
        trimester=pregnancy[1],
        lactation=reader.read("lactation", _bool, "true or false"),
        medications=reader.listed("medications"),
        allergies=reader.listed("allergies"),
        conditions=reader.listed("conditions"),
        labs=reader.each("labs", _lab, '[{"name": "potassium", "value": 4.1, "unit": "mmol/L", "date": "2026-11-20"}]'),
        egfr=reader.each("egfr", _egfr, '{"value": 55, "unit": "mL/min/1.73m2", "formula": "ckd-epi-2021"}'),
        overrides=reader.each("overrides", _overriding, '[{"rule": "id@1", "by": "physician", "reason": "..."}]'),
    )


def age_at(birth: datetime.date, day: datetime.date) -> Quantity:
    """Completed years from the birth to the day; before the first birthday days, so that infants are told apart.

    Raises
    ------
    ValueError : where the day is before the birth.
    """
    if day < birth:
        raise ValueError("birth after the day")
    years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    if years == 0:
        return Quantity(Decimal((day - birth).days), unit("days"))
    return Quantity(Decimal(years), unit("years"))


class _Reader:
    """One facts object: reads a key, or says what is wrong with it."""

    def __init__(self, facts: Mapping[str, JSON], where: str) -> None:
        self._facts, self._where = facts, where

    def _wrong(self, key: str, expected: str) -> UserError:
        shown = repr(self._facts[key])
        fix = f'write "{key}": {expected}, or leave it out where it is not known'
        return UserError(f"{self._where}: facts.{key} is {shown[:200]}, expected {expected}", fix=fix)

    def read(self, key: str, how: Callable[[JSON], _T], expected: str) -> _T | None:
        value = self._facts.get(key)
        if value is None:
            return None
        try:
            return how(value)
        except (ValueError, TypeError, KeyError) as error:  # a UnitError is a ValueError
            raise self._wrong(key, expected) from error

    def each(self, key: str, how: Callable[[JSON], _T], expected: str) -> tuple[_T, ...]:
        many = self.read(key, lambda v: [how(one) for one in ([v] if isinstance(v, Mapping) else _list(v))], expected)
        return tuple(many or ())

    def listed(self, key: str) -> Listed:
        value = self._facts.get(key)
        if value is None:
            return Listed()
        expected = 'a list of names such as ["warfarin"], or {"known": [...], "complete": false}'
        try:
            if isinstance(value, Mapping):
                if set(value) != {"known", "complete"} or not isinstance(value["complete"], bool):
                    raise ValueError(key)
                return Listed(tuple(map(_entry, _list(value["known"]))), value["complete"])
            return Listed(tuple([_entry(one) for one in _list(value)]), complete=True)
        except (ValueError, TypeError) as error:
            raise self._wrong(key, expected) from error


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list | tuple):
        raise TypeError("no list")
    return list(value)


def _entry(value: JSON) -> tuple[str, ...]:
    """A name, or an object whose `name`, `code` and `names` are all names of the one entry."""
    if isinstance(value, str) and value.strip():
        return (value,)
    if isinstance(value, Mapping) and set(value) <= {"name", "code", "names"}:
        names = tuple(v for k in ("name", "code") if (v := value.get(k)) is not None) + tuple(value.get("names", ()))
    else:
        raise TypeError("neither a name nor an object with a name")
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("no name")
    return names


def _date(value: JSON) -> datetime.date:
    if isinstance(value, datetime.date):
        return value
    return datetime.date.fromisoformat(value)


def _positive(value: JSON, default: str, measures: str) -> Quantity:
    found = quantity(plain(value), default)
    if found.unit.measures != ((measures, 1),) or found.value < 0 or (measures == "mass" and not found.value):
        raise UnitError("not positive, or of another measure")
    return found


def _bool(value: JSON) -> bool:
    if not isinstance(value, bool):
        raise TypeError("no boolean")
    return value


def _sex(value: JSON) -> str | None:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value.casefold() if value.casefold() in ("female", "male") else None


def _pregnancy(value: JSON) -> tuple[bool, int | None]:
    if isinstance(value, bool):
        return value, None
    if isinstance(value, Mapping) and set(value) == {"trimester"} and value["trimester"] in (1, 2, 3):
        return True, int(value["trimester"])
    raise ValueError("no pregnancy")


def _measured(value: JSON, name: str, default: str, extra: set[str]) -> Measurement:
    if not isinstance(value, Mapping) or not set(value) <= {"value", "unit", "date", *extra}:
        raise ValueError("no measurement")
    day = value.get("date")
    amount = quantity(plain(value["value"]), str(value.get("unit") or default))
    return Measurement(name, amount, None if day is None else _date(str(day)[:10]), value.get("formula"))


def _lab(value: JSON) -> Measurement:
    name = value["name"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no name")
    return _measured(value, name, "", {"name"})


def _egfr(value: JSON) -> Measurement:
    if value.get("formula") not in (None, "ckd-epi-2021", "cockcroft-gault"):
        raise ValueError("an unknown formula")
    return _measured(value, "egfr", "", {"formula"})


def _overriding(value: JSON) -> Overriding:
    texts = [value[key] for key in ("rule", "by", "reason")]
    if set(value) != {"rule", "by", "reason"} or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError("no override")
    return Overriding(*texts)
