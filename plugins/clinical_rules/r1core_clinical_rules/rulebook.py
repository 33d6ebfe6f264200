"""Drugs and rules of all files together: who is meant by a name, which rules apply, what they forbid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from r1core.api import JSON, Problem, Reason, UserError
from r1core_clinical_rules.characters import MIN_LENGTH, mentions, normalise
from r1core_clinical_rules.schema import Drug, Rule

Unknown = Literal["block", "warn", "skip"]


@dataclass(frozen=True)
class Sourced:
    """A drug or rule with the place that it was read from (`file:line rule ID`)."""

    entry: Drug | Rule
    where: str


class RuleBook:
    """The drugs and rules of one or several files.

    Names, brands, aliases and classes are all compared in their normalised form, here as in generated text.
    """

    def __init__(self, entries: Iterable[Sourced]) -> None:
        self._entries = tuple(entries)
        self.drugs: tuple[Drug, ...] = tuple(s.entry for s in self._entries if isinstance(s.entry, Drug))
        self.rules: tuple[Rule, ...] = tuple(s.entry for s in self._entries if isinstance(s.entry, Rule))
        self._by_name: dict[str, list[Drug]] = {}
        self._by_class: dict[str, list[Drug]] = {}
        for drug in self.drugs:
            for name in dict.fromkeys(map(normalise, drug.names)):
                self._by_name.setdefault(name, []).append(drug)
            for group in dict.fromkeys(map(normalise, drug.classes)):
                self._by_class.setdefault(group, []).append(drug)

    def problems(self) -> list[Problem]:
        """Everything that is wrong between entries: duplicates, unknown references, names too short to match."""
        found: list[Problem] = []
        seen: dict[tuple[type, str], str] = {}
        for sourced in self._entries:
            entry, where = sourced.entry, sourced.where
            kind = "rule id" if isinstance(entry, Rule) else "drug"
            key = entry.id if isinstance(entry, Rule) else normalise(entry.name)
            first = seen.setdefault((type(entry), key), where)
            if first != where:
                shown = entry.id if isinstance(entry, Rule) else entry.name
                again = f"the {kind} {shown!r} again (first at {first})"
                found.append(Problem(where, again, "each once", "remove one of them"))
            found += self._rule_problems(entry, where) if isinstance(entry, Rule) else self._drug_problems(entry, where)
        return found

    def _drug_problems(self, drug: Drug, where: str) -> list[Problem]:
        expected = f"at least {MIN_LENGTH} letters or digits"
        found = [
            Problem(where, f"the name {name!r}, too short to be matched safely", expected, f"remove {name!r}")
            for name in (*drug.names, *drug.classes)
            if len(normalise(name)) < MIN_LENGTH
        ]
        both = [c for c in drug.classes if normalise(c) in self._by_name]
        return found + [
            Problem(where, f"{name!r} both as a class and as a drug's name", "one meaning", "rename the class")
            for name in both
        ]

    def _rule_problems(self, rule: Rule, where: str) -> list[Problem]:
        terms = rule.when.medications.any if rule.when else ()
        found = [
            self._unknown(where, "drug or class", term, (*self._drug_names(), *self._class_names()))
            for term in terms
            if not self.drugs_of(term)
        ]
        found += [
            self._unknown(where, "drug", name, self._drug_names())
            for name in rule.forbid.drugs
            if normalise(name) not in self._by_name
        ]
        found += [
            self._unknown(where, "class", name, self._class_names())
            for name in rule.forbid.classes
            if normalise(name) not in self._by_class
        ]
        if not rule.forbid.drugs and not rule.forbid.classes:
            expected = "`drugs` or `classes` with at least one entry"
            found.append(Problem(where, "a `forbid` that forbids nothing", expected, "name a drug or a class"))
        return found

    def _drug_names(self) -> list[str]:
        return [name for drug in self.drugs for name in drug.names]

    def _class_names(self) -> list[str]:
        return list(dict.fromkeys(group for drug in self.drugs for group in drug.classes))

    @staticmethod
    def _unknown(where: str, what: str, name: str, known: Sequence[str]) -> Problem:
        close = difflib.get_close_matches(name.casefold(), [k.casefold() for k in known], n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"add {name!r} under `drugs`"
        return Problem(where, f"the unknown {what} {name!r}", f"a {what} listed under `drugs`", fix)

    def drugs_of(self, term: str) -> list[Drug]:
        """The drugs that a name, brand, alias or class stands for; [] when unknown."""
        key = normalise(term)
        return self._by_name.get(key) or self._by_class.get(key) or []

    def taken(self, medications: Sequence[str]) -> set[str]:
        """Canonical names of the listed drugs that these entries mention ("Coumadin 5 mg tablet" is warfarin).

        An entry that mentions a class counts as each drug of the class: which one it is, is not known.
        """
        found: set[str] = set()
        for index in (self._by_name, self._by_class):
            for name, drugs in index.items():
                if any(mentions(text, name) for text in medications):
                    found.update(drug.name for drug in drugs)
        return found

    def applicable(self, medications: Sequence[str] | None, on_unknown: Unknown) -> list[Rule]:
        """The rules that hold for a patient on these medications; None when they are not known."""
        taken = self.taken(medications) if medications is not None else None
        return [rule for rule in self.rules if self._applies(rule, taken, on_unknown)]

    def _applies(self, rule: Rule, taken: set[str] | None, on_unknown: Unknown) -> bool:
        if rule.when is None:
            return True
        if taken is None:
            return on_unknown == "block"
        return any(drug.name in taken for term in rule.when.medications.any for drug in self.drugs_of(term))

    def forbidden(self, rules: Iterable[Rule]) -> dict[str, list[Reason]]:
        """Every name that these rules forbid, as listed, with the reasons."""
        names: dict[str, list[Reason]] = {}
        for rule in rules:
            drugs = [drug for term in rule.forbid.drugs for drug in self._by_name.get(normalise(term), [])]
            drugs += [drug for term in rule.forbid.classes for drug in self._by_class.get(normalise(term), [])]
            for drug in dict.fromkeys(drugs):
                for name in drug.names:
                    reason = Reason(f"{rule.id}@{rule.version}", str(rule.citation), name, rule.severity)
                    names.setdefault(name, []).append(reason)
        return names


def medications_of(facts: Mapping[str, JSON] | None, where: str) -> list[str] | None:
    """The patient's medications out of the facts; None when they are not known.

    Raises
    ------
    UserError : when `medications` is there but is no list of texts; reading it half would pass for known.
    """
    if facts is None or facts.get("medications") is None:
        return None
    medications = facts["medications"]
    if not isinstance(medications, list | tuple) or not all(isinstance(m, str) for m in medications):
        raise UserError(
            f'{where}: facts.medications is {medications!r}, expected a list of names such as ["warfarin"]',
            fix='write "medications": ["warfarin"], [] for none, or leave it out where it is not known',
        )
    return list(medications)
