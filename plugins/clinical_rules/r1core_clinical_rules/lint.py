"""What is wrong with rules although the file is valid: conditions that cannot hold, rules that change nothing,
contradictions, and citations that nobody could look up.

It finds what follows from the rules themselves. Whether a rule is medically right it cannot know.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from r1core.api import Problem
from r1core_clinical_rules.characters import normalise
from r1core_clinical_rules.rulebook import RuleBook, parts_of
from r1core_clinical_rules.schema import Comparison, Rule, When

MAX_BRANCHES = 512  # alternatives of one condition that are looked at; beyond, it counts as one that can hold
Literal = tuple[str, Any, bool]  # key, value, whether it must hold
_Interval = tuple[Fraction | None, bool, Fraction | None, bool]  # low, low included, high, high included


def lint(book: RuleBook, today: datetime.date | None = None) -> list[Problem]:
    """Every finding, in the order of the rules; `today` : also what is no longer valid then."""
    used = [rule for rule in book.rules if rule.status != "retired"]
    found: list[Problem] = []
    for rule in used:
        where = book.where[rule.id]
        found += [Problem(where, *text) for text in _citation(rule)]
        found += [Problem(where, *text) for text in _condition(book, rule)]
        found += [Problem(where, *text, "warning") for text in _care(book, rule, today)]
        found += [Problem(where, *text, "warning") for text in _beside(book, rule, used)]
    return [*found, *_ambiguous(book)]


Text = tuple[str, str, str]  # found, expected, fix


def _citation(rule: Rule) -> Iterator[Text]:
    cited = rule.citation
    if cited is None:
        if rule.status == "active":
            yield "no citation", "`citation` with title, date, quote and where to find it", "cite it, or `unverified`"
        return
    if not cited.quote:
        yield "a citation without a quote", "the words that the rule rests on", "add `quote`"
    if not (cited.url or cited.locator):
        yield "a citation that nobody can look up", "`url` or `locator`", "say where it stands"
    if not cited.date:
        yield "a citation without a date", "the day, month or year of the document", "add `date`"


def _condition(book: RuleBook, rule: Rule) -> Iterator[Text]:
    if rule.when is not None and not can_hold(rule.when):
        yield "a condition that can never hold", "one that some patient meets", "correct `when`"
    forbidden = set(book.forbidden_drugs(rule.then.forbid))
    for cap in rule.then.cap_dose:
        if forbidden & set(book.by_name.meaning.get(normalise(cap.drug), ())):
            yield f"a cap for {cap.drug!r}, which the same rule forbids", "one of the two", "remove the cap"


def _care(book: RuleBook, rule: Rule, today: datetime.date | None) -> Iterator[Text]:
    if not rule.cases:
        yield "no cases", "at least one patient that it applies to and one that it does not", "add `cases`"
    elif rule.when is not None and len({case.expect.applies for case in rule.cases}) == 1:
        yield "cases of one kind only", "one that it applies to and one that it does not", "add the other"
    if rule.on_unknown == "skip" and rule.severity in ("contraindicated", "major"):
        yield f"`on_unknown: skip` on a {rule.severity} rule", "`block`, or `warn`", "unknown is not safe"
    if today is not None and rule.valid is not None and rule.valid.until is not None and rule.valid.until < today:
        yield f"valid until {rule.valid.until}", "a rule that still holds", "renew it or set `status: retired`"
    for part in parts_of(rule.when):
        if part.conditions is not None and part.conditions.descendants:
            for term in part.conditions.any:
                if not book.knows_condition(term):
                    yield f"descendants of {term!r}, which no hierarchy holds", "the condition in `hierarchy`", "add it"


def _beside(book: RuleBook, rule: Rule, every: Sequence[Rule]) -> Iterator[Text]:
    """What other rules do to this one."""
    phrases = [(phrase, wording) for phrase in rule.then.require_phrase for wording in phrase.any]
    forbids = set(book.forbidden_drugs(rule.then.forbid))
    only_forbids = bool(forbids) and not (rule.then.cap_dose or rule.then.require_phrase or rule.then.require_check)
    for other in every:
        if other.then.forbid is not None:
            theirs = set(book.forbidden_drugs(other.then.forbid))
            if phrases:
                names = [normalise(name) for i in theirs for name in book.drugs[i].names]
                for _, wording in phrases:
                    if any(name in normalise(wording) for name in names):
                        yield f"requires {wording!r}, which {other.label} forbids", "no contradiction", "reword it"
            implied = other is not rule and _implies(book, rule, other)
            if implied and only_forbids and forbids <= theirs and _first(book, rule, other, forbids == theirs):
                yield f"shadowed by {other.label}, which forbids as much and applies as often", "a use", "retire one"
            for cap in rule.then.cap_dose:
                if implied and theirs & set(book.by_name.meaning.get(normalise(cap.drug), ())):
                    yield f"a cap for {cap.drug!r}, which {other.label} forbids then", "a use", "remove the cap"
        elif other is not rule and rule.then.cap_dose and _implies(book, rule, other):
            yield from _beaten(rule, other)


def _beaten(rule: Rule, other: Rule) -> Iterator[Text]:
    for cap in rule.then.cap_dose:
        for lower in other.then.cap_dose:
            same = (normalise(lower.drug), lower.per) == (normalise(cap.drug), cap.per)
            reaches = lower.route is None or lower.route == cap.route
            if same and reaches and lower.max.comparable(cap.max) and lower.max.compare(cap.max) < 0:
                yield f"a cap for {cap.drug!r} that {other.label} always undercuts", "a use", "remove it"


def _first(book: RuleBook, rule: Rule, other: Rule, equal: bool) -> bool:
    """Of two rules that shadow each other, only the later one is told."""
    return not (equal and _implies(book, other, rule)) or book.rules.index(other) < book.rules.index(rule)


def _implies(book: RuleBook, rule: Rule, other: Rule) -> bool:
    """Whether the other applies wherever this rule does, as far as their conditions show it."""
    if other.status != "active" or other.valid is not None or other.jurisdiction not in (None, rule.jurisdiction):
        return False
    if (other.on_unknown or "block") != (rule.on_unknown or "block"):
        return False
    return other.when is None or (rule.when is not None and _narrower(book, rule.when, other.when))


def _narrower(book: RuleBook, when: When, wider: When) -> bool:
    if when == wider:
        return True
    if when.medications is not None and wider.medications is not None:
        drugs = {i for term in when.medications.any for i in book.drugs_of(term)}
        return drugs <= {i for term in wider.medications.any for i in book.drugs_of(term)}
    return any(_narrower(book, part, wider) for part in when.all or ())


def _ambiguous(book: RuleBook) -> Iterator[Problem]:
    for name, drugs in book.by_name.meaning.items():
        if len(drugs) > 1:
            shared = " and ".join(book.drugs[i].name for i in drugs)
            fix = "remove it from all but one"
            yield Problem("drugs", f"the name {name!r} of {shared}", "a name of one drug", fix, "warning")


# -- whether a condition can hold


def can_hold(when: When) -> bool:
    """Whether some patient could meet the condition; True where it has too many alternatives to tell."""
    branches = _branches(when, True)
    return branches is None or any(map(_consistent, branches))


def _branches(when: When, wanted: bool) -> list[list[Literal]] | None:
    """The condition as alternatives of literals; None for too many."""
    name, value = when.part
    if name == "not":
        return _branches(value, not wanted)
    if name not in ("all", "any"):
        return [[(name, value, wanted)]]
    parts = [_branches(child, wanted) for child in value]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    if (name == "all") != wanted:
        joined = [branch for part in known for branch in part]
        return joined if len(joined) <= MAX_BRANCHES else None
    count = 1
    for part in known:
        count *= len(part)
    if count > MAX_BRANCHES:
        return None
    return [[literal for branch in chosen for literal in branch] for chosen in product(*known)]


def _consistent(literals: Sequence[Literal]) -> bool:
    ranges: dict[tuple[str, ...], list[_Interval]] = {}
    for name, value, wanted in literals:
        if (name, value, not wanted) in literals:
            return False
        if isinstance(value, Comparison):
            key = (
                name,
                getattr(value, "name", ""),
                str(getattr(value, "formula", "")),
                str(value.bounds[0][1].unit.measures),
            )
            intervals = _intervals(value, wanted)
            if intervals is not None:
                ranges.setdefault(key, []).append(intervals)
    sexes = {value for name, value, wanted in literals if name == "sex" and wanted}
    states = {
        value for name, value, wanted in literals if name in ("pregnancy",) and isinstance(value, bool) and wanted
    }
    trimesters = [
        set(v.trimester) for n, v, wanted in literals if n == "pregnancy" and not isinstance(v, bool) and wanted
    ]
    if len(sexes) > 1 or len(states) > 1 or (trimesters and (False in states or not set.intersection(*trimesters))):
        return False
    return all(_meet(found) for found in ranges.values())


def _intervals(value: Comparison, wanted: bool) -> _Interval | None:
    """The values that a comparison allows; None where they are no single interval."""
    low: _Interval = (None, True, None, True)
    for name, bound in value.bounds:
        at = bound.base
        below = name in ("at_most", "below")
        included = name in ("at_least", "at_most")
        if not wanted:
            if len(value.bounds) > 1:
                return None
            below, included = not below, not included
        low = _narrowed(low, at, included, below)
    return low


def _narrowed(held: _Interval, at: Fraction, included: bool, below: bool) -> _Interval:
    low, low_in, high, high_in = held
    if below and (high is None or at < high or (at == high and not included)):
        return low, low_in, at, included
    if not below and (low is None or at > low or (at == low and not included)):
        return at, included, high, high_in
    return held


def _meet(intervals: Sequence[_Interval]) -> bool:
    held: _Interval = (None, True, None, True)
    for low, low_in, high, high_in in intervals:
        if low is not None:
            held = _narrowed(held, low, low_in, False)
        if high is not None:
            held = _narrowed(held, high, high_in, True)
    low, low_in, high, high_in = held
    return low is None or high is None or low < high or (low == high and low_in and high_in)
