"""The recheck of a finished text against an outcome: forbidden names, doses above caps, phrases that are missing.

It shares no code with the automata: regular expressions and searches over a folded text, in English. It finds what is
written as a listed name and a number with a unit. It does not understand the text; finding nothing is no approval.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from r1core_clinical_rules.doses import REACH, Dose, doses_in
from r1core_clinical_rules.folding import Folded, fold, mentions, words
from r1core_clinical_rules.outcome import Cap, Outcome, exceeds
from r1core_clinical_rules.units import BODY, Quantity

Kind = Literal["forbidden_name", "dose_above_cap", "dose_not_comparable", "missing_phrase"]

# Route -> how texts write it. A cap's own route counts as written that way too.
ROUTES = {
    "IV": r"iv|i\.v\.|intravenous(?:ly)?",
    "IV_DRIP": r"infusion|infuse|drip|iv drip",
    "IM": r"im|i\.m\.|intramuscular(?:ly)?",
    "PO": r"po|p\.o\.|oral(?:ly)?|by mouth",
    "SQ": r"sq|sc|s\.c\.|subq|subcut|subcutaneous(?:ly)?",
    "PR": r"pr|p\.r\.|rectal(?:ly)?",
    "IN": r"intranasal(?:ly)?|nasal(?:ly)?|nostril",
    "SL": r"sl|sublingual(?:ly)?",
    "ETT": r"ett|endotracheal(?:ly)?",
    "INH": r"inh|inhaled|nebuli[sz](?:ed|er)|inhalation",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a text that an outcome does not allow, at characters `start` to `end` (its end where it lacks)."""

    kind: Kind
    text: str
    start: int
    end: int
    rules: tuple[str, ...]
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        return asdict(self)


def check_text(outcome: Outcome, text: str) -> list[Finding]:
    """Everything in a finished text that the outcome does not allow, in order of place.

    A dose that cannot be compared with its cap (an unknown unit, no weight for a cap per kilogram, no frequency for a
    cap of a day) is a finding too: `dose_not_comparable`.
    """
    folded = fold(text)
    found = [*_forbidden(outcome, folded, text), *_doses(outcome, folded, text)]
    written = words(text)
    for phrase in outcome.phrases:
        if not any(words(wording) in written for wording in phrase.any):
            rules = tuple(dict.fromkeys(reason.rule for reason in phrase.reasons))
            why = f"the text must say {' or '.join(map(repr, phrase.any))}"
            found.append(Finding("missing_phrase", phrase.any[0], len(text), len(text), rules, why))
    return sorted(dict.fromkeys(found), key=lambda f: (f.start, f.end, f.kind))


def _at(folded: Folded, text: str, start: int, end: int) -> tuple[str, int, int]:
    first, last = folded.origin[start], folded.origin[end - 1] + 1
    return text[first:last], first, last


def _forbidden(outcome: Outcome, folded: Folded, text: str) -> Iterator[Finding]:
    for name, reasons in outcome.forbidden.items():
        for start, end in mentions(folded, name):
            rules = tuple(dict.fromkeys(reason.rule for reason in reasons))
            why = f"{name} is forbidden: {reasons[0].citation}"
            yield Finding("forbidden_name", *_at(folded, text, start, end), rules, why)


def _doses(outcome: Outcome, folded: Folded, text: str) -> Iterator[Finding]:
    caps: dict[str, list[Cap]] = {}
    for cap in outcome.caps:
        caps.setdefault(cap.drug, []).append(cap)
    if not caps:
        return
    named = _named(outcome, folded)
    ends = [end for _, end, _ in named]
    for dose in doses_in(folded.text, ends):
        place = _owner(dose, named, folded.text)
        if place is None:
            continue
        for drug in {drug for start, end, drug in named if (start, end) == named[place][:2]} & set(caps):
            around = _around(named, place, dose, folded.text)
            for cap in _by_route(caps[drug], around):
                kind, why = _verdict(outcome, dose, cap)
                if kind is not None:
                    yield Finding(kind, *_at(folded, text, dose.start, dose.end), cap.rules, why)


def _named(outcome: Outcome, folded: Folded) -> list[tuple[int, int, str]]:
    """Where drugs of the book stand: (start, end, drug), a name inside of a longer one left out."""
    every = [(s, e, drug.name) for drug in outcome.drugs for name in drug.names for s, e in mentions(folded, name)]
    every = sorted(dict.fromkeys(every), key=lambda n: (n[0], -n[1]))
    return [n for n in every if not any(o[0] <= n[0] and n[1] <= o[1] and n[:2] != o[:2] for o in every)]


def _owner(dose: Dose, named: list[tuple[int, int, str]], text: str) -> int | None:
    """The place in `named` of the drug that a dose belongs to.

    The drug right behind it ("5 g of acetaminophen"), else the last one before it within reach, else the next one.
    """
    behind = next((i for i, n in enumerate(named) if n[0] >= dose.end), None)
    before = max((i for i, n in enumerate(named) if n[1] <= dose.start), default=None)
    if behind is not None:
        between = text[dose.end : named[behind][0]]
        routes = "|".join(ROUTES.values())
        if re.fullmatch(rf"[ -]*(?:(?:of|dose|doses|{routes}|the|a|tablets?|capsules?)[ -]+)*", between):
            return behind
    if before is not None and dose.start - named[before][1] <= REACH:
        return before
    return behind if behind is not None and named[behind][0] - dose.end <= REACH else None


def _around(named: list[tuple[int, int, str]], place: int, dose: Dose, text: str) -> str:
    """The text in which a route would belong to this dose: from the drug or dose, whichever is first, to the next."""
    start, end, _ = named[place]
    after = next((n[0] for n in named if n[0] >= max(end, dose.end)), len(text))
    return text[min(start, dose.start) : min(after, max(end, dose.end) + REACH)]


def _by_route(caps: list[Cap], around: str) -> list[Cap]:
    """The caps of the routes that the text names; all of them where it names none."""
    routes = {cap.route for cap in caps if cap.route}
    known = {*ROUTES, *routes}
    patterns = {route: ROUTES.get(route, re.escape(route.casefold())) for route in known}
    said = {route for route, pattern in patterns.items() if re.search(rf"\b(?:{pattern})(?![a-z0-9])", around)}
    return [cap for cap in caps if cap.route is None or not said or cap.route in said]


def _verdict(outcome: Outcome, dose: Dose, cap: Cap) -> tuple[Kind | None, str]:
    limit = (
        f"{cap.drug}{f' {cap.route}' if cap.route else ''}: at most {cap.amount or '(weight unknown)'} per {cap.per}"
    )
    amount, per_day = _for_patient(outcome, dose.amount), _for_patient(outcome, dose.per_day)
    if cap.per == "dose":
        if amount is None and per_day is not None and exceeds(per_day, cap) is False:
            return None, ""  # not even a whole day's amount is above the cap of one dose
        above = None if amount is None else exceeds(amount, cap)
    else:
        above = None if per_day is None else exceeds(per_day, cap)
        if above is None and amount is not None and exceeds(amount, cap):
            above = True  # one dose alone is above the cap of a day
    if above is False:
        return None, ""
    if above:
        return "dose_above_cap", limit
    return "dose_not_comparable", f"{limit}; this dose cannot be compared with it"


def _for_patient(outcome: Outcome, amount: Quantity | None) -> Quantity | None:
    """An amount per kilogram for this patient; None where it, or the weight, is not known."""
    if amount is None or not amount.unit.over(BODY):
        return amount
    return None if outcome.patient.weight is None else amount.times_weight(outcome.patient.weight)
