"""What the rules say of one patient, as one value: forbidden names, caps, phrases, checks, warnings and proofs.

Forbid beats cap: a drug that is forbidden has no cap. Of several caps the lowest wins. Each entry lists its rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from r1core.api import Reason
from r1core_clinical_rules.conditions import View
from r1core_clinical_rules.facts import Patient
from r1core_clinical_rules.logic import Truth, bits, shown
from r1core_clinical_rules.proof import Proof
from r1core_clinical_rules.schema import CapDose, Drug, Rule
from r1core_clinical_rules.units import BODY, Quantity

if TYPE_CHECKING:
    from r1core_clinical_rules.engine import Compiled
    from r1core_clinical_rules.rulebook import RuleBook


@dataclass(frozen=True, slots=True)
class Cap:
    """The most of a drug that one dose, or one day, may hold.

    `amount` : None where it depends on a weight that is not known; then no dose can be found to be allowed.
    `route` : None for every route. `rules` : those whose cap this is. `beaten` : those with a higher one.
    """

    drug: str
    names: tuple[str, ...]
    per: str
    route: str | None
    amount: Quantity | None
    rules: tuple[str, ...]
    beaten: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text that the answer must hold: one of `any`."""

    any: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What a person has to check before the answer is used."""

    text: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Overridden:
    """A rule that a person set aside; recorded with the outcome."""

    rule: str
    by: str
    reason: str


class Capping:
    """A cap of one rule for one drug, ready to be compared. `alone` : what it is where no other rule caps the same."""

    def __init__(self, label: str, drug: int, entry: Drug, cap: CapDose, amount: Quantity | None) -> None:
        self.label, self.drug, self._entry, self.cap, self.amount = label, drug, entry, cap, amount
        self.per_kilogram = amount is not None and amount.unit.over(BODY)
        self.base = None if amount is None else amount.base
        self.key = (drug, cap.per, cap.route, None if amount is None else amount.unit.measures)
        self.alone = Cap(entry.name, entry.names, cap.per, cap.route, amount, (label,))

    def of(self, amount: Quantity | None) -> Capping:
        """The same with the amount for a patient, None where it is not known."""
        return Capping(self.label, self.drug, self._entry, self.cap, amount)


@lru_cache(maxsize=4096)
def _caps(rules: tuple[Compiled, ...], forbidden: int, weight: Quantity | None) -> tuple[Cap, ...]:
    """The lowest of each drug, route, dose or day, and measure; remembered, since many patients have the same."""
    grouped: dict[object, list[Capping]] = {}
    for capping in (capping for one in rules for capping in one.caps if not forbidden >> capping.drug & 1):
        if capping.per_kilogram:
            capping = capping.of(None if weight is None else capping.cap.max.times_weight(weight))
        grouped.setdefault(capping.key, []).append(capping)
    return tuple(found[0].alone if len(found) == 1 else _lowest(found) for found in grouped.values())


def _lowest(found: Sequence[Capping]) -> Cap:
    """The lowest of several caps of the same measure, which names every rule."""
    lowest = min(found, key=lambda one: one.base or 0)
    here = dict.fromkeys(one.label for one in found if one.base == lowest.base)
    beaten = dict.fromkeys(one.label for one in found if one.label not in here)
    return replace(lowest.alone, rules=tuple(here), beaten=tuple(beaten))


class Outcome:
    """What follows for one patient.

    Attributes
    ----------
    applied : the rules that apply, with the truth of their condition (None: unknown, and treated as met).
    overridden : rules that would apply and were set aside.
    warnings : what was not applied because it is unknown, entries that no file lists, refused overrides.
    """

    def __init__(
        self,
        book: RuleBook,
        view: View,
        applied: Sequence[tuple[Compiled, Truth]],
        overridden: Sequence[Overridden],
        warnings: Sequence[str],
    ) -> None:
        self._book, self._view = book, view
        self._compiled = tuple(applied)
        self.overridden, self.warnings = tuple(overridden), tuple(warnings)

    @property
    def patient(self) -> Patient:
        """The facts that were asked."""
        return self._view.patient

    @property
    def drugs(self) -> tuple[Drug, ...]:
        """Every drug of the rule files."""
        return self._book.drugs

    @property
    def applied(self) -> tuple[tuple[Rule, Truth], ...]:
        """The rules that apply, in the order of the files, with the truth of their condition."""
        return tuple((one.rule, truth) for one, truth in self._compiled)

    @cached_property
    def key(self) -> frozenset[str]:
        """The applied rules by id: outcomes of one rule book with equal keys forbid the same names."""
        return frozenset(one.rule.id for one, _ in self._compiled)

    @cached_property
    def forbidden_drugs(self) -> tuple[str, ...]:
        """The names of the drugs that are forbidden."""
        names = self._book.drug_names
        return tuple([names[i] for i in bits(self._forbidden_mask)])

    @cached_property
    def _forbidden_mask(self) -> int:
        mask = 0
        for one, _ in self._compiled:
            mask |= one.forbids
        return mask

    @cached_property
    def forbidden(self) -> Mapping[str, tuple[Reason, ...]]:
        """Every name that is forbidden, as listed, with the reasons."""
        names: dict[str, dict[Reason, None]] = {}
        for one, _ in self._compiled:
            for name, reason in one.reasons:
                names.setdefault(name, {})[reason] = None
        return {name: tuple(why) for name, why in names.items()}

    @cached_property
    def caps(self) -> tuple[Cap, ...]:
        """The lowest cap for each drug, route, dose or day, and measure; none where the drug is forbidden."""
        capping = tuple([one for one, _ in self._compiled if one.caps])
        return _caps(capping, self._forbidden_mask & self._book.capped_drugs, self._view.patient.weight)

    @cached_property
    def phrases(self) -> tuple[Phrase, ...]:
        """The phrases that the answer must hold; equal ones once, with all their rules."""
        grouped: dict[tuple[str, ...], list[Reason]] = {}
        for one, _ in self._compiled:
            for phrase in one.rule.then.require_phrase:
                grouped.setdefault(phrase.any, []).append(_reason(one.rule, phrase.any[0]))
        return tuple(Phrase(texts, tuple(reasons)) for texts, reasons in grouped.items())

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """What a person has to check."""
        return tuple(Check(t, _reason(one.rule, t)) for one, _ in self._compiled for t in one.rule.then.require_check)

    @cached_property
    def proofs(self) -> tuple[Proof, ...]:
        """One proof tree for each rule that applies."""
        return tuple(one.proof(self._view) for one, _ in self._compiled)

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON, without the proofs."""
        return {
            "applied": [{"rule": rule.label, "severity": rule.severity, "truth": shown(t)} for rule, t in self.applied],
            "forbidden": {name: [reason.rule for reason in why] for name, why in self.forbidden.items()},
            "caps": [
                {
                    "drug": cap.drug, "per": cap.per, "route": cap.route, "rules": list(cap.rules),
                    "amount": None if cap.amount is None else str(cap.amount), "beaten": list(cap.beaten),
                }
                for cap in self.caps
            ],
            "phrases": [{"any": list(p.any), "rules": [r.rule for r in p.reasons]} for p in self.phrases],
            "checks": [{"check": c.text, "rule": c.reason.rule} for c in self.checks],
            "overridden": [{"rule": o.rule, "by": o.by, "reason": o.reason} for o in self.overridden],
            "warnings": list(self.warnings),
        }  # fmt: skip


def _reason(rule: Rule, text: str) -> Reason:
    return Reason(rule.label, str(rule.citation or "no citation"), text, rule.severity)


def exceeds(dose: Quantity, cap: Cap) -> bool | None:
    """Whether a dose (or the amount of one day, for a cap of a day) is above the cap; None where that cannot be told.

    None: the cap depends on an unknown weight, or the two measure different things. A caller treats it as above.
    """
    if cap.amount is None or not dose.comparable(cap.amount):
        return None
    return dose.compare(cap.amount) > 0
