"""The YAML rule file as data: drugs, allergens, a hierarchy, and rules with conditions and conclusions."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema
from pydantic import model_validator as validates

from r1core_clinical_rules.units import BODY, Quantity, UnitError, plain, quantity

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Severity = Literal["contraindicated", "major", "moderate", "minor"]
OnUnknown = Literal["block", "warn", "skip"]
Status = Literal["active", "unverified", "retired"]
Formula = Literal["ckd-epi-2021", "cockcroft-gault"]


def _quantity(value: object) -> Quantity:
    if isinstance(value, Quantity):
        return value
    try:
        return quantity(plain(value))
    except UnitError as error:
        raise ValueError(f"a number with a unit such as '0.5 mg' (found {error})") from error


Amount = Annotated[
    Quantity,
    PlainValidator(_quantity),
    WithJsonSchema({"type": "string", "description": "number and unit", "examples": ["4 g", "15 mg/kg", "18 years"]}),
]
Date = Annotated[
    datetime.date,
    BeforeValidator(lambda v: v if isinstance(v, str | datetime.date) else str(v)),
    Field(description="ISO 8601, YYYY-MM-DD"),
]
Terms = Annotated[tuple[Text, ...], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Drug(_Strict):
    """One drug; `name`, `brands` and `aliases` are all names of it."""

    name: Text
    brands: tuple[Text, ...] = ()
    aliases: tuple[Text, ...] = ()
    classes: tuple[Text, ...] = ()
    cross_reactivity: tuple[Text, ...] = Field((), description="classes of allergens that react together")

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the drug is known, as listed."""
        return tuple(dict.fromkeys((self.name, *self.brands, *self.aliases)))


class DrugClass(_Strict):
    """What a class of drugs is called in texts ("blood thinner"); which drugs are of it, the drugs themselves say."""

    name: Text
    aliases: Terms


class Allergen(_Strict):
    """What a patient can be allergic to that is no drug of the file: a food, a group of drugs, a preservative."""

    name: Text
    aliases: tuple[Text, ...] = ()
    cross_reactivity: tuple[Text, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of it, as listed."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))


class Citation(_Strict):
    """Where a rule comes from: the document, the place in it, its words, and the grade that it gives itself."""

    title: Text
    url: Text | None = None
    date: Text | None = Field(None, description="of the document: YYYY, YYYY-MM or YYYY-MM-DD")
    locator: Text | None = Field(None, description="the place in the document: page, section, file#entry")
    quote: Text | None = None
    grade: Text | None = Field(None, description="strength of the statement, in the document's own words")

    def __str__(self) -> str:
        parts = [self.title, self.locator or ""]
        text = ", ".join(part for part in parts if part)
        return text + (f": “{self.quote}”" if self.quote else "") + (f" <{self.url}>" if self.url else "")


class Comparison(_Strict):
    """A value between bounds; every bound given must hold."""

    at_least: Amount | None = None
    above: Amount | None = None
    at_most: Amount | None = None
    below: Amount | None = None

    @validates(mode="after")
    def _bounded(self) -> Comparison:
        bounds = self.bounds
        if not bounds:
            raise ValueError("one of at_least, above, at_most, below")
        if any(not bound.comparable(bounds[0][1]) for _, bound in bounds):
            raise ValueError("bounds in units of the same measure")
        return self

    @property
    def bounds(self) -> list[tuple[str, Quantity]]:
        """The bounds that are given, by name."""
        named = ((name, getattr(self, name)) for name in ("at_least", "above", "at_most", "below"))
        return [(name, bound) for name, bound in named if bound is not None]


class Dated(Comparison):
    """A comparison with a measurement, which may have to be recent."""

    not_older_than: Amount | None = Field(None, description="age of the measurement at the patient's `as_of` date")

    @validates(mode="after")
    def _age_is_a_time(self) -> Dated:
        if self.not_older_than is not None and self.not_older_than.unit.measures != (("time", 1),):
            raise ValueError("`not_older_than` as a time such as '90 days'")
        return self


class Lab(Dated):
    """A laboratory value by its name or code; compared only with values in a unit of the same measure."""

    name: Text


class Egfr(Dated):
    """Kidney function; `formula` asks for that one, given or computed from creatinine, age, sex (and weight)."""

    formula: Formula | None = None


class Medications(_Strict):
    """True when the patient takes any of these drugs, or any drug of these classes."""

    any: Terms


class Allergies(_Strict):
    """True when the patient is allergic to any of these, or (unless told otherwise) to what cross-reacts with one."""

    any: Terms
    cross_reactive: bool = True


class Conditions(_Strict):
    """True when the patient has any of these conditions, or (unless told otherwise) a descendant of one."""

    any: Terms
    descendants: bool = True


class Pregnancy(_Strict):
    """True in these trimesters."""

    trimester: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1)]


class When(_Strict):
    """What must hold of the patient: exactly one of these keys; `all`, `any` and `not` hold further ones."""

    all: tuple[When, ...] | None = Field(None, min_length=1)
    any: tuple[When, ...] | None = Field(None, min_length=1)
    not_: When | None = Field(None, alias="not")
    age: Comparison | None = None
    sex: Literal["female", "male"] | None = None
    weight: Comparison | None = None
    pregnancy: bool | Pregnancy | None = None
    lactation: bool | None = None
    allergies: Allergies | None = None
    egfr: Egfr | None = None
    lab: Lab | None = None
    medications: Medications | None = None
    conditions: Conditions | None = None

    @validates(mode="after")
    def _exactly_one(self) -> When:
        if len(self.model_fields_set) != 1:
            given = len(self.model_fields_set)
            raise ValueError(f"exactly one key in a condition, not {given}; join several under `all:`")
        name, value = self.part
        wanted = {"age": (("time", 1),), "weight": (("mass", 1),)}.get(name)
        if value is None or (wanted and any(bound.unit.measures != wanted for _, bound in value.bounds)):
            raise ValueError(f"`{name}` with a value{' in a unit of ' + wanted[0][0] if wanted else ''}")
        return self

    @property
    def part(self) -> tuple[str, Any]:
        """The one key that is given, and its value."""
        (name,) = self.model_fields_set
        return name.rstrip("_"), getattr(self, name)


class Forbid(_Strict):
    """What must not be generated: drugs by any of their names, and every drug of a class."""

    drugs: tuple[Text, ...] = ()
    classes: tuple[Text, ...] = ()


class CapDose(_Strict):
    """The most of a drug that one dose or one day may hold; without `route` by every route."""

    drug: Text
    max: Amount
    per: Literal["dose", "day"]
    route: Text | None = None

    @validates(mode="after")
    def _an_amount(self) -> CapDose:
        amounts = {"mass", "volume", "amount", "equivalents", "units", "international units"}
        measures = dict(self.max.unit.measures)
        kind = next(iter(measures), "")
        per = {name: power for name, power in measures.items() if power < 0}
        if self.per == "day" and per.get("time"):
            raise ValueError("`max` without a time, which `per: day` says")
        if [n for n, power in measures.items() if power > 0 and n in amounts and power == 1] == [] or set(per) - {BODY}:
            raise ValueError(f"`max` as an amount such as '4 g' or '15 mg/kg' (found {kind or 'a plain number'})")
        return self


class RequirePhrase(_Strict):
    """A text that an answer must hold, word by word; or one of several."""

    any: Terms


class Then(_Strict):
    """What follows: at least one conclusion."""

    forbid: Forbid | None = None
    cap_dose: tuple[CapDose, ...] = ()
    require_phrase: tuple[RequirePhrase, ...] = ()
    require_check: tuple[Text, ...] = Field((), description="what a person has to check before the answer is used")

    @validates(mode="after")
    def _something(self) -> Then:
        if self.forbid is None and not (self.cap_dose or self.require_phrase or self.require_check):
            raise ValueError("at least one of forbid, cap_dose, require_phrase, require_check")
        return self


class Override(_Strict):
    """Who may set a rule aside, always with a reason; without this a rule cannot be overridden."""

    by: Terms = Field(description="roles, for instance physician")


class Validity(_Strict):
    """From which day until which day, both included, a rule holds."""

    since: Date | None = None
    until: Date | None = None

    @validates(mode="after")
    def _in_order(self) -> Validity:
        if self.since and self.until and self.until < self.since:
            raise ValueError("`until` not before `since`")
        return self


class Expect(_Strict):
    """What a case expects of its rule; names and texts that are not named are not looked at."""

    applies: bool
    unknown: bool | None = Field(None, description="whether the condition could not be decided")
    forbids: tuple[Text, ...] = ()
    allows: tuple[Text, ...] = Field((), description="names that must stay allowed")
    caps: Mapping[str, Amount] = Field({}, description="drug -> lowest cap that follows, for this patient")
    finds: tuple[Text, ...] = Field((), description="texts in which the audit must find something")
    passes: tuple[Text, ...] = Field((), description="texts in which the audit must find nothing")


class Case(_Strict):
    """A patient and what the rule must say of them; run by `r1core rules test`."""

    facts: Mapping[str, Any]
    expect: Expect


class Rule(_Strict):
    """One rule; without `when` it always applies."""

    id: Text
    version: Annotated[Text | int, Field(union_mode="left_to_right")]
    status: Status
    title: Text
    severity: Severity
    jurisdiction: Text | None = Field(None, description="ISO 3166 code, for instance FR")
    valid: Validity | None = None
    citation: Citation | None = None
    when: When | None = None
    on_unknown: OnUnknown | None = Field(None, description="instead of the recipe's `on_unknown`")
    then: Then
    override: Override | None = None
    cases: tuple[Case, ...] = ()

    @validates(mode="after")
    def _cited(self) -> Rule:
        if self.status == "active" and (self.citation is None or not self.citation.quote):
            raise ValueError("a `citation` with a `quote`, or `status: unverified` (which is off by default)")
        return self

    @property
    def label(self) -> str:
        """`id@version`, as outcomes and reasons name it."""
        return f"{self.id}@{self.version}"


class Hierarchy(_Strict):
    """Which condition is a kind of which: pairs here, or a file of `child<TAB>parent` lines beside the rule file."""

    pairs: tuple[tuple[Text, Text], ...] = ()
    file: Path | None = None


class RuleFile(_Strict):
    """The top level of a rule file."""

    version: Literal[2]
    drugs: tuple[Drug, ...] = ()
    classes: tuple[DrugClass, ...] = ()
    allergens: tuple[Allergen, ...] = ()
    hierarchy: Hierarchy | None = None
    rules: tuple[Rule, ...] = ()


class Policy(_Strict):
    """How rules are applied.

    Parameters
    ----------
    on_unknown : what a rule does where its condition cannot be decided: `block` applies it, `warn` says that it
        was not applied, `skip` says nothing. A rule's own `on_unknown` comes first.
    unlisted : what an entry of a patient's list that no file knows means: `warn` says so, `unknown` takes the list
        for incomplete, so that every condition on it that does not hold is unknown.
    unverified : whether rules of `status: unverified` are used.
    jurisdictions : rules of these and rules without one are used; without it all are.
    overridable : severities of which a rule's own `override` counts.
    """

    on_unknown: OnUnknown = "block"
    unlisted: Literal["warn", "unknown"] = "warn"
    unverified: bool = False
    jurisdictions: tuple[Text, ...] | None = None
    overridable: tuple[Severity, ...] = ("minor", "moderate", "major")


class Config(Policy):
    """The recipe's section of this plugin: the policy, and the rule files.

    Parameters
    ----------
    files : rule files, absolute or relative to the current directory; drugs are shared between them.
    ascii_only : refuse every byte outside ASCII while generating, so that no look-alike can be written at all.
    read_orders : read medications and allergies out of the prompt too, and count them among the facts.
    names : lists of other drugs' names (a drug a line, its names between tabs), so that none is taken for a listed one.
    """

    files: tuple[Path, ...] = Field(min_length=1)
    ascii_only: bool = False
    read_orders: bool = False
    names: tuple[Path, ...] = ()
