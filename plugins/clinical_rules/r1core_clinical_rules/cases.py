"""The cases written beside each rule, run one rule at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from r1core.api import UserError
from r1core_clinical_rules.audit import check_text
from r1core_clinical_rules.characters import normalise
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import Outcome
from r1core_clinical_rules.rulebook import RuleBook
from r1core_clinical_rules.schema import Expect, Policy, Rule


@dataclass(frozen=True, slots=True)
class Failure:
    """What a rule said otherwise than one of its cases expects; `case` counts from 1."""

    rule: str
    case: int
    found: str

    def __str__(self) -> str:
        return f"{self.rule} case {self.case}: {self.found}"


def run_cases(book: RuleBook, policy: Policy | None = None) -> tuple[int, list[Failure], list[str]]:
    """Run every case of every rule that is not retired, unverified ones too.

    Returns how many cases ran, what failed, and the rules without a case.
    """
    policy = (policy or Policy()).model_copy(update={"unverified": True, "jurisdictions": None})
    ran, failed, bare = 0, [], []
    for rule in book.rules:
        if rule.status == "retired":
            continue
        if not rule.cases:
            bare.append(rule.label)
        engine = Engine(book, policy, [rule])
        for number, case in enumerate(rule.cases, 1):
            ran += 1
            try:
                outcome = engine.evaluate(patient_from(case.facts, f"{rule.label} case {number}"))
            except UserError as error:
                failed.append(Failure(rule.label, number, str(error)))
                continue
            failed += [Failure(rule.label, number, found) for found in _differences(rule, outcome, case.expect)]
    return ran, failed, bare


def _differences(rule: Rule, outcome: Outcome, expect: Expect) -> Iterator[str]:
    truths = [truth for applied, truth in outcome.applied if applied.label == rule.label]
    if bool(truths) != expect.applies:
        yield f"{'applies' if truths else 'does not apply'}, expected the opposite"
        return
    if truths and expect.unknown is not None and (truths[0] is None) != expect.unknown:
        yield f"its condition is {'unknown' if truths[0] is None else 'known'}, expected the opposite"
    forbidden = set(map(normalise, outcome.forbidden))
    yield from (f"does not forbid {name!r}" for name in expect.forbids if normalise(name) not in forbidden)
    yield from (f"forbids {name!r}" for name in expect.allows if normalise(name) in forbidden)
    for drug, wanted in expect.caps.items():
        amounts = [cap.amount for cap in outcome.caps if normalise(drug) in map(normalise, cap.names)]
        lowest = min((a for a in amounts if a is not None and a.comparable(wanted)), key=lambda a: a.base, default=None)
        if lowest is None or lowest.base != wanted.base:
            yield f"caps {drug} at {lowest or 'nothing'}, expected {wanted}"
    yield from (f"the audit finds nothing in {text!r}" for text in expect.finds if not check_text(outcome, text))
    for text in expect.passes:
        found = check_text(outcome, text)
        if found:
            yield f"the audit finds {found[0].kind} in {text!r}"
