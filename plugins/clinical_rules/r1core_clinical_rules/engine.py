"""Rules compiled once, then asked for one patient after the other.

Bits do most of the work, each rule a bit of an int. A rule that is one condition on a list, or both of two, is decided
by them alone: every entry of a patient's list knows for which rules it meets the first and for which the second
condition. For the others it knows which can hold by it; those are decided condition by condition.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from r1core.api import Reason
from r1core_clinical_rules.characters import normalise
from r1core_clinical_rules.conditions import Compiler, Node, View
from r1core_clinical_rules.facts import LISTS, Patient
from r1core_clinical_rules.logic import Truth, bits
from r1core_clinical_rules.outcome import Capping, Outcome, Overridden
from r1core_clinical_rules.proof import Proof
from r1core_clinical_rules.rulebook import RuleBook, condition_key
from r1core_clinical_rules.schema import Policy, Rule, When

MAX_ENTRIES = 65_536  # remembered entries of patients' lists, about 1 kB each


class Compiled:
    """One rule, ready: its condition, whom it forbids, what it caps.

    `forbids` : bit i set for drug i.
    """

    def __init__(self, rule: Rule, node: Node | None, book: RuleBook, on_unknown: str) -> None:
        self.rule, self.node, self._book = rule, node, book
        self.on_unknown = rule.on_unknown or on_unknown
        self.forbids = sum(1 << i for i in book.forbidden_drugs(rule.then.forbid))
        self.caps = tuple(
            Capping(rule.label, i, book.drugs[i], cap, cap.max)
            for cap in rule.then.cap_dose
            for i in book.by_name.meaning.get(normalise(cap.drug), ())
        )

    @cached_property
    def reasons(self) -> tuple[tuple[str, Reason], ...]:
        """Every name that is forbidden, with the reason."""
        return tuple(self._book.reasons(self.rule))

    def holds(self, view: View) -> Truth:
        """Whether the condition holds."""
        return True if self.node is None else self.node.holds(view)

    def expired(self, as_of: datetime.date | None) -> bool:
        """Whether the rule is known not to hold on this day; on an unknown day it holds."""
        valid = self.rule.valid
        if valid is None or as_of is None:
            return False
        return bool((valid.since and as_of < valid.since) or (valid.until and as_of > valid.until))

    def proof(self, view: View) -> Proof:
        """From the facts to what follows."""
        truth = self.holds(view)
        why = () if self.node is None else (self.node.proof(view),)
        treated = {"block": "applies, the unknown counts as met", "warn": "is not applied", "skip": "is not applied"}
        how = treated[self.on_unknown] if truth is None else "applies" if truth else "does not apply"
        so = (*follows(self.rule), f"source: {self.rule.citation}") if how.startswith("applies") else ()
        return Proof(f"{self.rule.label} ({self.rule.severity}) {how}", truth, because=why, so=so)


@dataclass(slots=True)
class _Entry:
    """What one entry of a list brings. `hits` : conditions. The rest : rules. `known` : whether any file lists it."""

    hits: int
    first: int
    second: int
    candidates: int
    known: bool


class Engine:
    """The rules of a book under a policy; `rules` : these only, instead of all of the book."""

    def __init__(self, book: RuleBook, policy: Policy | None = None, rules: Sequence[Rule] | None = None) -> None:
        self.book, self.policy = book, policy or Policy()
        compiler = Compiler()
        self.rules = [
            Compiled(rule, compiler.node(rule.when) if rule.when else None, book, self.policy.on_unknown)
            for rule in (book.rules if rules is None else rules)
            if self.in_use(rule)
        ]
        self._on_lists = compiler.on_lists
        self._kinds = [LISTS.index(when.part[0]) for when in self._on_lists]
        self._index_rules()
        self._index_terms()
        self._entries: tuple[dict[tuple[str, ...], _Entry], ...] = ({}, {}, {})

    def in_use(self, rule: Rule) -> bool:
        """Whether the policy uses this rule at all: by its status and jurisdiction."""
        wanted = self.policy.jurisdictions
        here = wanted is None or rule.jurisdiction is None or rule.jurisdiction in wanted
        return here and (rule.status == "active" or (rule.status == "unverified" and self.policy.unverified))

    def _index_rules(self) -> None:
        """For which rules a condition on a list is the first or the second of two, or one by which they can hold."""
        count = len(self._on_lists)
        self._first, self._second, self._candidate = [0] * count, [0] * count, [0] * count
        self._of = ([0, 0, 0], [0, 0, 0], [0, 0, 0])  # the same three, by list
        self._certain = 0  # rules without a condition
        self._by_fact: dict[Node, int] = {}  # condition on one fact -> the rules that it alone decides
        self._always = 0  # rules that no condition on a list can rule out
        self._dated = sum(1 << place for place, one in enumerate(self.rules) if one.rule.valid is not None)
        self._policy = {"block": 0, "warn": 0, "skip": 0}
        for place, one in enumerate(self.rules):
            bit = 1 << place
            self._policy[one.on_unknown] |= bit
            pair = None if one.node is None else one.node.pair()
            needs = None if one.node is None else one.node.needs()
            if one.node is None:
                self._certain |= bit
                continue
            if one.rule.when is not None and one.rule.when.part[0] not in (*LISTS, "all", "any", "not"):
                self._by_fact[one.node] = self._by_fact.get(one.node, 0) | bit
                continue
            if pair is not None:
                noted = [(0, pair[0]), (1, pair[1])]
            elif needs is not None:
                noted = [(2, number) for number in needs]
            else:
                self._always |= bit
                continue
            for which, number in noted:
                (self._first, self._second, self._candidate)[which][number] |= bit
                self._of[which][self._kinds[number]] |= bit

    def _index_terms(self) -> None:
        """Which conditions a drug, a substance or a condition of the patient makes true."""
        self._by_drug: dict[int, int] = {}
        self._by_substance: dict[int, int] = {}
        self._by_condition: dict[tuple[str, bool], int] = {}
        for number, when in enumerate(self._on_lists):
            for key, into in self._meant(when):
                into[key] = into.get(key, 0) | 1 << number

    def _meant(self, when: When) -> Iterator[tuple[object, dict[object, int]]]:
        book = self.book
        if when.medications is not None:
            for term in when.medications.any:
                yield from ((i, self._by_drug) for i in book.drugs_of(term))  # type: ignore[misc]
        elif when.allergies is not None:
            found = book.substances_of(when.allergies.any, cross_reactive=when.allergies.cross_reactive)
            yield from ((i, self._by_substance) for i in found)  # type: ignore[misc]
        elif when.conditions is not None:
            for term in when.conditions.any:
                yield (condition_key(term), when.conditions.descendants), self._by_condition  # type: ignore[misc]

    def _entry(self, kind: int, names: tuple[str, ...]) -> _Entry:
        """What an entry of a list brings, remembered."""
        memory = self._entries[kind]
        found = memory.get(names)
        if found is None:
            hits, known = (self._medication, self._allergy, self._condition)[kind](names)
            found = _Entry(hits, 0, 0, 0, known)
            for number in bits(hits):
                found.first |= self._first[number]
                found.second |= self._second[number]
                found.candidates |= self._candidate[number]
            if len(memory) >= MAX_ENTRIES:
                memory.clear()
            memory[names] = found
        return found

    def _medication(self, names: tuple[str, ...]) -> tuple[int, bool]:
        drugs = self.book.taken(names)
        return reduce(or_, (self._by_drug.get(i, 0) for i in drugs), 0), bool(drugs)

    def _allergy(self, names: tuple[str, ...]) -> tuple[int, bool]:
        substances = self.book.substances(names)
        hits = reduce(or_, (self._by_substance.get(i, 0) for i in substances), 0)
        return hits, bool(substances)

    def _condition(self, names: tuple[str, ...]) -> tuple[int, bool]:
        hits, known = 0, any(self.book.knows_condition(name) for name in names)
        for name in names:
            key = condition_key(name)
            itself = self._by_condition.get((key, False), 0)
            known = known or bool(itself) or (key, True) in self._by_condition
            above = self.book.ancestors(name)
            hits |= reduce(or_, (self._by_condition.get((up, True), 0) for up in above), itself)
        return hits, known

    def view(self, patient: Patient) -> View:
        """The patient with the conditions on lists decided."""
        return self._viewed(patient)[0]

    def _viewed(self, patient: Patient) -> tuple[View, int, int, int, list[str]]:
        hits = first = second = candidates = 0
        warnings, opened = [], []
        for kind, listed in enumerate((patient.medications, patient.allergies, patient.conditions)):
            complete = listed.complete
            for names in listed.entries:
                found = self._entries[kind].get(names) or self._entry(kind, names)
                hits |= found.hits
                first |= found.first
                second |= found.second
                candidates |= found.candidates
                if not found.known:
                    warnings.append(f"{LISTS[kind]}: no rule file lists {' / '.join(names)!r}")
                    complete = complete and self.policy.unlisted == "warn"
            opened.append(not complete)
        return View(patient, hits, (opened[0], opened[1], opened[2])), first, second, candidates, warnings

    def evaluate(self, patient: Patient) -> Outcome:
        """What the rules say of this patient."""
        view, first, second, candidates, warnings = self._viewed(patient)
        holds = (first & second) | self._certain
        candidates |= self._always
        for kind in range(len(LISTS)):
            if view.open[kind]:
                first |= self._of[0][kind]
                second |= self._of[1][kind]
                candidates |= self._of[2][kind]
        unknown = first & second & ~holds
        for node, mask in self._by_fact.items():
            truth = node.holds(view)
            if truth:
                holds |= mask
            elif truth is None:
                unknown |= mask
        for place in bits(candidates):
            truth = self.rules[place].holds(view)
            if truth:
                holds |= 1 << place
            elif truth is None:
                unknown |= 1 << place
        warnings += [
            f"{self.rules[i].rule.label}: not applied, its condition is unknown"
            for i in bits(unknown & self._policy["warn"])
        ]
        blocked = unknown & self._policy["block"]
        for place in bits((holds | blocked) & self._dated):
            if self.rules[place].expired(patient.as_of):
                warnings.append(f"{self.rules[place].rule.label}: not applied, not valid on {patient.as_of}")
                holds, blocked = holds & ~(1 << place), blocked & ~(1 << place)
        rules = self.rules
        applied: list[tuple[Compiled, Truth]] = [(rules[i], True) for i in bits(holds)]
        if blocked:
            applied = [(rules[i], None if blocked >> i & 1 else True) for i in bits(holds | blocked)]
        overridden: list[Overridden] = []
        if patient.overrides:
            applied = self._override(patient, applied, overridden, warnings)
        return Outcome(self.book, view, applied, overridden, warnings)

    def _override(
        self,
        patient: Patient,
        applied: list[tuple[Compiled, Truth]],
        overridden: list[Overridden],
        warnings: list[str],
    ) -> list[tuple[Compiled, Truth]]:
        """Take out the rules that were rightly set aside; a refused override changes nothing and is told."""
        labels = {one.rule.label: one.rule for one, _ in applied}
        for asked in patient.overrides:
            rule = labels.get(asked.rule)
            if rule is None:
                warnings.append(f"override of {asked.rule!r}: no such rule applies (write id@version)")
            elif rule.severity not in self.policy.overridable:
                warnings.append(f"override of {asked.rule} refused: no {rule.severity} rule can be overridden")
            elif rule.override is None or asked.by not in rule.override.by:
                who = "nobody" if rule.override is None else " or ".join(rule.override.by)
                warnings.append(f"override of {asked.rule} by {asked.by!r} refused: {who} may")
            else:
                overridden.append(Overridden(asked.rule, asked.by, asked.reason))
        aside = {one.rule for one in overridden}
        return [(one, truth) for one, truth in applied if one.rule.label not in aside]

    def explain(self, patient: Patient) -> list[Proof]:
        """A proof for every rule in use, of those that do not apply too."""
        view = self.view(patient)
        return [one.proof(view) for one in self.rules]


def follows(rule: Rule) -> tuple[str, ...]:
    """The conclusions of a rule in words."""
    then = rule.then
    found = []
    if then.forbid is not None:
        whom = (*then.forbid.drugs, *(f"every {group}" for group in then.forbid.classes))
        found.append(f"forbids {', '.join(whom)}")
    for cap in then.cap_dose:
        found.append(f"caps {cap.drug}{f' {cap.route}' if cap.route else ''} at {cap.max} per {cap.per}")
    found += [f"requires the phrase {' or '.join(map(repr, phrase.any))}" for phrase in then.require_phrase]
    return (*found, *(f"requires a check: {text}" for text in then.require_check))
