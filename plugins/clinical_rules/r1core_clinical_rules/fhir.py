"""A patient's facts from a FHIR R4 bundle in JSON (https://hl7.org/fhir/R4/).

Read: Patient (`birthDate`, `gender`), AllergyIntolerance, MedicationStatement, MedicationRequest, Condition, and
Observation (body weight, creatinine, estimated filtration rate, pregnancy status, every other number as a laboratory
value). Everything else is left out and told in the notes. A bundle cannot show that nothing else exists, so a list is
complete only where the caller says so, and never where one of its resources could not be read.

Codes: body weight is LOINC 29463-7 (HL7's body weight profile); pregnancy is told by the answers of the International
Patient Summary (LOINC LA15173-0 and LA26683-5, SNOMED CT 77386006 and 60001007). All else is recognised by its text.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from r1core.api import JSON, UserError
from r1core_clinical_rules.facts import LISTS
from r1core_clinical_rules.units import UnitError, plain, unit

BODY_WEIGHT = "29463-7"
PREGNANT = {"LA15173-0": True, "77386006": True, "LA26683-5": False, "60001007": False}
_CREATININE = re.compile(r"creatinine(?: \[(?:mass|moles)/volume\] in (?:serum|plasma|serum or plasma|blood))?")
_RATE = re.compile(r".*(?:glomerular filtration rate|\begfr\b).*")
# States in which a resource says nothing of today's patient, by its R4 value set; any other state, none too, counts.
_NOT_TAKEN = {"completed", "entered-in-error", "stopped", "not-taken", "cancelled"}
_NOT_PRESENT = {"inactive", "remission", "resolved"}
_REFUTED = {"refuted", "entered-in-error"}
_MEASURED = {"final", "amended", "corrected"}


class _Unreadable(Exception):
    """A resource that should say something and does not."""


def facts_from_bundle(bundle: JSON, complete: Collection[str] = ()) -> tuple[dict[str, JSON], list[str]]:
    """The facts of the bundle's one patient, as `patient_from` reads them, and notes on what was left out.

    `complete` : the lists (`medications`, `allergies`, `conditions`) that the caller knows to be whole in this bundle.

    Raises
    ------
    UserError : for what is no bundle, without exactly one patient, or with a resource of another patient.
    """
    if not isinstance(bundle, Mapping) or bundle.get("resourceType") != "Bundle":
        raise UserError("expected a FHIR R4 Bundle", fix='give a JSON object with "resourceType": "Bundle"')
    unknown = set(complete) - set(LISTS)
    if unknown:
        raise UserError(f"no list {sorted(unknown)[0]!r}", fix=f"one of {', '.join(LISTS)}")
    return _Bundle(bundle).facts(complete)


class _Bundle:
    def __init__(self, bundle: Mapping[str, JSON]) -> None:
        self._entries = [e for e in bundle.get("entry") or () if isinstance(e, Mapping)]
        self._resources = [r for e in self._entries if isinstance(r := e.get("resource"), Mapping)]
        self._timestamp = bundle.get("timestamp")
        self._notes: list[str] = []
        self._dated: dict[str, tuple[str | None, JSON]] = {}
        self._broken: set[str] = set()
        if len(self._resources) != len(bundle.get("entry") or ()):
            self._broken.update(LISTS)
            self._notes.append("entries without a resource: no list is complete")

    def facts(self, complete: Collection[str]) -> tuple[dict[str, JSON], list[str]]:
        patient = self._patient()
        facts: dict[str, JSON] = {}
        day = _day(self._timestamp)
        if day:
            facts["as_of"] = day
        self._demographics(patient, facts)
        readers: dict[str, tuple[str, Callable[[Mapping[str, JSON]], JSON]]] = {
            "AllergyIntolerance": ("allergies", self._allergy),
            "MedicationStatement": ("medications", self._medication),
            "MedicationRequest": ("medications", self._medication),
            "Condition": ("conditions", self._condition),
        }
        lists: dict[str, list[JSON]] = {name: [] for name in LISTS}
        left_out: Counter[str] = Counter()
        for resource in self._resources:
            kind = str(resource.get("resourceType"))
            if kind in readers:
                name, read = readers[kind]
                try:
                    found = read(resource)
                except _Unreadable as error:
                    self._broken.add(name)
                    self._notes.append(f"{_name(resource)}: not read ({error}); {name} are not complete")
                    continue
                lists[name] += [] if found is None else [found]
            elif kind == "Observation":
                self._observation(resource, facts)
            elif kind not in ("Patient", "Medication"):
                left_out[kind] += 1
        for name, known in lists.items():
            facts[name] = {"known": known, "complete": name in complete and name not in self._broken}
        self._notes += [f"{kind}: {count} left out, not read by design" for kind, count in sorted(left_out.items())]
        return facts, self._notes

    def _patient(self) -> Mapping[str, JSON]:
        patients = [r for r in self._resources if r.get("resourceType") == "Patient"]
        if len(patients) != 1:
            raise UserError(f"{len(patients)} patients in the bundle", fix="give a bundle of exactly one patient")
        own = {f"Patient/{patients[0].get('id')}"}
        own |= {str(e.get("fullUrl")) for e in self._entries if e.get("resource") is patients[0]}
        for resource in self._resources:
            subject = resource.get("subject") or resource.get("patient")
            reference = subject.get("reference") if isinstance(subject, Mapping) else None
            if reference is not None and not any(one == reference or one.endswith(f"/{reference}") for one in own):
                raise UserError(
                    f"{_name(resource)} is of {reference}, another patient", fix="give one patient's bundle"
                )
        return patients[0]

    def _demographics(self, patient: Mapping[str, JSON], facts: dict[str, JSON]) -> None:
        birth = _day(patient.get("birthDate"))
        if birth:
            facts["birth_date"] = birth
        else:
            self._notes.append(f"Patient.birthDate {patient.get('birthDate')!r}: no full day, the age is unknown")
        if patient.get("gender") in ("female", "male"):
            facts["sex"] = patient["gender"]
        else:
            self._notes.append(f"Patient.gender {patient.get('gender')!r}: the sex is unknown")

    # -- lists: each returns the entry, None where the resource says "not (any more)", or raises

    def _allergy(self, resource: Mapping[str, JSON]) -> JSON:
        if _state(resource, "verificationStatus") in _REFUTED or _state(resource, "clinicalStatus") in _NOT_PRESENT:
            return self._absent(resource)
        names = [n for reaction in resource.get("reaction") or () for n in _names(reaction.get("substance"))]
        return _entry([*_names(resource.get("code")), *names])

    def _condition(self, resource: Mapping[str, JSON]) -> JSON:
        if _state(resource, "verificationStatus") in _REFUTED or _state(resource, "clinicalStatus") in _NOT_PRESENT:
            return self._absent(resource)
        return _entry(_names(resource.get("code")))

    def _medication(self, resource: Mapping[str, JSON]) -> JSON:
        if resource.get("status") in _NOT_TAKEN or resource.get("doNotPerform") is True:
            return self._absent(resource)
        names = _names(resource.get("medicationCodeableConcept"))
        reference = resource.get("medicationReference")
        if isinstance(reference, Mapping):
            found = self._referenced(resource, reference)
            names += _names((found or {}).get("code")) + [t for t in (reference.get("display"),) if isinstance(t, str)]
            for part in (found or {}).get("ingredient") or ():
                names += _names(part.get("itemCodeableConcept"))
        return _entry(names)

    def _referenced(self, resource: Mapping[str, JSON], reference: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
        wanted = str(reference.get("reference") or "")
        if wanted.startswith("#"):
            return next((c for c in resource.get("contained") or () if c.get("id") == wanted[1:]), None)
        for entry in self._entries:
            found = entry.get("resource")
            if isinstance(found, Mapping) and wanted in (entry.get("fullUrl"), f"Medication/{found.get('id')}"):
                return found
        return None

    def _absent(self, resource: Mapping[str, JSON]) -> None:
        self._notes.append(f"{_name(resource)}: not counted, its status says so")

    # -- observations

    def _observation(self, resource: Mapping[str, JSON], facts: dict[str, JSON]) -> None:
        if resource.get("status") not in _MEASURED:
            self._notes.append(f"{_name(resource)}: not read, status {resource.get('status')!r}")
            return
        codes = {c.get("code") for c in _codings(resource.get("code"))}
        day = _day(resource.get("effectiveDateTime")) or _day(resource.get("effectiveInstant"))
        answers = [
            PREGNANT[c["code"]] for c in _codings(resource.get("valueCodeableConcept")) if c.get("code") in PREGNANT
        ]
        if answers:
            self._newest(facts, "pregnancy", answers[0], day)
            return
        values = list(_values(resource))
        if not values:
            self._notes.append(f"{_name(resource)}: not read, no numeric value")
        for names, quantity in values:
            try:
                measured = _measured(quantity)
            except (UnitError, KeyError, TypeError) as error:
                self._notes.append(f"{_name(resource)}: not read ({error})")
                continue
            if BODY_WEIGHT in codes or {"body weight", "weight"} & set(names):
                self._newest(facts, "weight", f"{measured['value']} {measured['unit']}", day)
                continue
            dated = {**measured, **({"date": day} if day else {})}
            if any(_RATE.fullmatch(name) for name in names) and "time" in dict(unit(measured["unit"]).measures):
                text = " ".join(names)
                formula = {"formula": "ckd-epi-2021"} if "ckd-epi 2021" in text and "cystatin" not in text else {}
                facts.setdefault("egfr", []).append({**dated, **formula})
                continue
            named = ["creatinine"] if any(_CREATININE.fullmatch(name) for name in names) else names
            facts.setdefault("labs", []).extend({"name": name, **dated} for name in dict.fromkeys(named))

    def _newest(self, facts: dict[str, JSON], key: str, value: JSON, day: str | None) -> None:
        """Keep the newest value of a fact that has one; two that cannot be ordered leave it unknown."""
        before = self._dated.get(key)
        if before is None or (day and before[0] and day > before[0]):
            self._dated[key] = (day, value)
            facts[key] = value
        elif value != before[1] and not (day and before[0] and day < before[0]):
            self._dated[key] = (None, None)
            facts.pop(key, None)
            self._notes.append(f"{key}: two values that cannot be ordered by day, it is unknown")


def _name(resource: Mapping[str, JSON]) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id', '(no id)')}"


def _day(value: JSON) -> str | None:
    """The day of a FHIR date or dateTime that names one."""
    try:
        return datetime.date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return None


def _codings(concept: JSON) -> list[Mapping[str, Any]]:
    found = concept.get("coding") if isinstance(concept, Mapping) else None
    return [c for c in found or () if isinstance(c, Mapping)]


def _names(concept: JSON) -> list[str]:
    """Text, displays and codes of a concept."""
    if not isinstance(concept, Mapping):
        return []
    found = [concept.get("text"), *(c.get(key) for c in _codings(concept) for key in ("display", "code"))]
    return [name.strip() for name in found if isinstance(name, str) and name.strip()]


def _entry(names: list[str]) -> JSON:
    if not names:
        raise _Unreadable("it names nothing")
    return {"names": list(dict.fromkeys(names))}


def _state(resource: Mapping[str, JSON], key: str) -> str | None:
    codes = [c.get("code") for c in _codings(resource.get(key))]
    return str(codes[0]) if codes else None


def _values(resource: Mapping[str, JSON]) -> Iterator[tuple[list[str], Mapping[str, JSON]]]:
    """Names (small letters) and quantity of an observation and its components."""
    for part in (resource, *(resource.get("component") or ())):
        if isinstance(part, Mapping) and isinstance(part.get("valueQuantity"), Mapping):
            yield [name.casefold() for name in _names(part.get("code"))], part["valueQuantity"]


def _measured(quantity: Mapping[str, JSON]) -> dict[str, JSON]:
    """Value and unit, the coded unit first; a comparator ("<5") is no value."""
    if quantity.get("comparator"):
        raise UnitError(f"only a bound: {quantity['comparator']}")
    value = Decimal(plain(quantity["value"]))
    for name in (quantity.get("code"), quantity.get("unit")):
        try:
            return {"value": f"{value:f}", "unit": unit(str(name)).name}
        except UnitError:
            continue
    raise UnitError(f"the unknown unit {quantity.get('unit') or quantity.get('code')!r}")
