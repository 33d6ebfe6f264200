"""Warnings for orders in free text: which rules speak of medications that one patient takes together.

The rules decide. What is new here is which medications of a text bring a rule about, and which of them it warns of.
A class ("an NSAID") counts where every drug of it that the files list would. A medication that is only asked about
is weighed against what is taken, not against what else is asked about. Finding nothing is no approval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from r1core.api import JSON
from r1core_clinical_rules.conditions import View
from r1core_clinical_rules.engine import Compiled, Engine
from r1core_clinical_rules.facts import Listed, Patient, patient_from
from r1core_clinical_rules.medications import Recogniser
from r1core_clinical_rules.orders import Order, read_orders
from r1core_clinical_rules.rulebook import parts_of

SEVERITIES = ("contraindicated", "major", "moderate", "minor")


@dataclass(frozen=True, slots=True)
class Taken:
    """One medication of a patient: its names, where texts name it ((text, order) each), or a fact where none does."""

    name: str
    names: tuple[str, ...]
    orders: tuple[tuple[int, Order], ...] = ()
    asked: bool = False  # asked about, not taken

    @property
    def certain(self) -> bool:
        """Whether a text names it as listed, or the facts do."""
        return not self.orders or any(order.mention.certain for _, order in self.orders)

    @property
    def reading(self) -> str:
        """How it was read, "read 'coumadn' as coumadin (warfarin)", or its name where nothing had to be guessed."""
        return self.name if self.certain else str(self.orders[0][1].mention)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A rule that warns: `id@version`, its severity, title and citation, and what has to be checked, if it says."""

    rule: str
    severity: str
    title: str
    citation: str
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InteractionWarning:
    """Medications of one patient that rules speak against: two together, or one because of the other facts."""

    medications: tuple[Taken, ...]
    rules: tuple[Conclusion, ...]  # the gravest first

    @property
    def severity(self) -> str:
        """The gravest of its rules."""
        return self.rules[0].severity

    @property
    def certain(self) -> bool:
        """Whether every medication is named as listed."""
        return all(one.certain for one in self.medications)

    def as_dict(self) -> dict[str, Any]:
        """The warning as JSON."""
        return {
            "severity": self.severity,
            "certain": self.certain,
            "medications": [
                {
                    "name": one.name, "reading": one.reading, "certain": one.certain, "asked": one.asked,
                    "mentions": [{"part": part, **order.as_dict()} for part, order in one.orders],
                }
                for one in self.medications
            ],
            "rules": [
                {"rule": c.rule, "severity": c.severity, "title": c.title, "citation": c.citation, "checks": c.checks}
                for c in self.rules
            ],
        }  # fmt: skip


class Warner:
    """Reads texts and asks the rules; `warn` may be called for one patient after the other."""

    def __init__(self, engine: Engine, recogniser: Recogniser) -> None:
        self.engine, self.recogniser = engine, recogniser
        self._by_label = {
            one.rule.label: one for one in engine.rules if one.forbids or one.rule.then.require_check
        }  # a cap or a phrase is no warning
        self._masks: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._views: dict[tuple[str, ...], View] = {}

    def warn(
        self, texts: str | Sequence[str], facts: Mapping[str, JSON] | None = None, where: str = "facts"
    ) -> list[InteractionWarning]:
        """The warnings for one patient, the gravest first; `texts` are all of this patient.

        Raises
        ------
        api.UserError : for facts that cannot be read.
        """
        parts = (texts,) if isinstance(texts, str) else texts
        orders = [(part, order) for part, text in enumerate(parts) for order in read_orders(self.recogniser, text)]
        return self.judge(orders, patient_from(facts, where))

    def judge(self, orders: Iterable[tuple[int, Order]], patient: Patient) -> list[InteractionWarning]:
        """The warnings for orders that were read, beside what the facts say."""
        orders = tuple(orders)
        allergies = [o.mention.meaning.names for _, o in orders if o.status == "allergy"]
        if allergies:
            known = tuple(dict.fromkeys((*patient.allergies.entries, *allergies)))
            patient = replace(patient, allergies=replace(patient.allergies, entries=known))
        taken = self._taken(orders, patient)
        if not taken:
            return []
        everything = self.engine.evaluate(_with(patient, taken))
        relevant = [
            one
            for rule, truth in everything.applied
            if truth and (one := self._by_label.get(rule.label)) is not None
            if rule.then.require_check or any(any(m & one.forbids for m in self._members(t)) for t in taken)
        ]
        found: dict[tuple[int, ...], dict[Conclusion, None]] = {}
        self._views = {}
        for one in relevant:
            for places in self._spoken_of(one, taken, patient):
                found.setdefault(places, {})[_conclusion(one)] = None
        warnings = [
            InteractionWarning(
                tuple(taken[place] for place in places),
                tuple(sorted(rules, key=lambda c: SEVERITIES.index(c.severity))),
            )
            for places, rules in sorted(found.items())
        ]
        return sorted(warnings, key=lambda w: (SEVERITIES.index(w.severity), not w.certain))

    def _taken(self, orders: Sequence[tuple[int, Order]], patient: Patient) -> list[Taken]:
        """The medications that are taken or asked about, each once, those of the texts first."""
        grouped: dict[tuple[str, ...], list[tuple[int, Order]]] = {}
        for part, order in orders:
            if order.status in ("current", "considered") and (
                order.mention.meaning.drugs or order.mention.meaning.group
            ):
                grouped.setdefault(order.mention.meaning.names, []).append((part, order))
        found = [
            Taken(said[0][1].mention.meaning.name, names, tuple(said), not any(o.taken for _, o in said))
            for names, said in grouped.items()
        ]
        return found + [Taken(e[0], e) for e in patient.medications.entries if e not in grouped]

    def _members(self, taken: Taken) -> tuple[int, ...]:
        """For each drug that the medication may be: bit i for drug i. One mask for a name, one a drug for a class."""
        known = self._masks.get(taken.names)
        if known is None:
            book = self.engine.book
            if any(name in book.class_names for name in taken.names):
                known = tuple(1 << i for i in sorted(book.taken(taken.names)))
            else:
                known = (sum(1 << i for i in book.taken(taken.names)),)
            self._masks[taken.names] = known
        return known

    def _spoken_of(self, one: Compiled, taken: Sequence[Taken], patient: Patient) -> list[tuple[int, ...]]:
        """The places in `taken` of the medications that a rule speaks of, in the smallest sets that bring it about."""
        alone = one.holds(self._view(patient, ()))
        met = [place for place, t in enumerate(taken) if all(m & one.forbids for m in self._members(t))]
        if one.rule.when is None or not any(part.medications for part in parts_of(one.rule.when)) or alone:
            return [(place,) for place in met]
        holding = {p for p, t in enumerate(taken) if self._holds(one, patient, t)}
        if one.rule.then.require_check and not one.forbids:
            pairs = [
                (a, b)
                for a, b in combinations(range(len(taken)), 2)
                if self._apart(taken[a], taken[b]) and self._holds(one, patient, taken[a], taken[b])
            ]
            return [*((p,) for p in holding), *((a, b) for a, b in pairs if not {a, b} & holding)]
        return [(min(a, b), max(a, b)) for a in holding for b in met if a != b and self._apart(taken[a], taken[b])]

    def _apart(self, first: Taken, second: Taken) -> bool:
        """Whether two medications are taken together: different drugs, and one of them more than asked about."""
        if first.asked and second.asked:
            return False
        return not any(a & b for a in self._members(first) for b in self._members(second))

    def _holds(self, one: Compiled, patient: Patient, *taken: Taken) -> bool:
        """Whether the rule's condition holds of a patient who takes these alone, whichever drug a class stands for."""
        entries: list[tuple[tuple[str, ...], ...]] = [()]
        for medication in taken:
            each = self._choices(medication)
            entries = [(*chosen, names) for chosen in entries for names in each]
        return all(one.holds(self._view(patient, chosen)) is True for chosen in entries)

    def _choices(self, taken: Taken) -> list[tuple[str, ...]]:
        masks = self._members(taken)
        if len(masks) == 1:
            return [taken.names]
        drugs = self.engine.book.drug_names
        return [(drugs[mask.bit_length() - 1],) for mask in masks]

    def _view(self, patient: Patient, entries: tuple[tuple[str, ...], ...]) -> View:
        key = tuple(name for names in entries for name in names)
        found = self._views.get(key)
        if found is None:
            listed = Listed(entries, patient.medications.complete)
            found = self._views[key] = self.engine.view(replace(patient, medications=listed))
        return found


def _with(patient: Patient, taken: Sequence[Taken]) -> Patient:
    listed = Listed(tuple(one.names for one in taken), patient.medications.complete)
    return replace(patient, medications=listed)


def _conclusion(one: Compiled) -> Conclusion:
    rule = one.rule
    return Conclusion(
        rule.label, rule.severity, rule.title, str(rule.citation or "no citation"), rule.then.require_check
    )
