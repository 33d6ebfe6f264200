"""Drugs, allergens, conditions and rules of all files together: who is meant by a name, and what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from r1core.api import Problem, Reason
from r1core_clinical_rules.characters import MIN_LENGTH, SHORT, normalise
from r1core_clinical_rules.names import NameIndex
from r1core_clinical_rules.schema import Allergen, Drug, DrugClass, Forbid, Rule, When


@dataclass(frozen=True)
class Sourced:
    """A drug, class, allergen or rule with the place that it was read from (`file:line rule ID`)."""

    entry: Drug | DrugClass | Allergen | Rule
    where: str


def condition_key(name: str) -> str:
    """How names and codes of conditions are compared: without case, white space collapsed."""
    return " ".join(name.casefold().split())


class RuleBook:
    """The entries of one or several files.

    Names, brands, aliases and classes of drugs and allergens are compared in their normalised form, here as in
    generated text; conditions by `condition_key`.

    `capped_drugs` : bit i set where any rule caps drug i. `class_names` : class -> what texts call it.

    Parameters
    ----------
    parents : condition -> the conditions that it is a kind of, added to the files' own hierarchies.
    """

    def __init__(self, entries: Iterable[Sourced], parents: Mapping[str, Iterable[str]] | None = None) -> None:
        self._entries = tuple(entries)
        self.drugs: tuple[Drug, ...] = tuple(s.entry for s in self._entries if isinstance(s.entry, Drug))
        self.drug_names: tuple[str, ...] = tuple(drug.name for drug in self.drugs)
        self.allergens: tuple[Allergen, ...] = tuple(s.entry for s in self._entries if isinstance(s.entry, Allergen))
        self.rules: tuple[Rule, ...] = tuple(s.entry for s in self._entries if isinstance(s.entry, Rule))
        self.where: dict[str, str] = {s.entry.id: s.where for s in self._entries if isinstance(s.entry, Rule)}
        named = [(normalise(name), i) for i, drug in enumerate(self.drugs) for name in drug.names]
        self.class_names: dict[str, tuple[str, ...]] = {}
        for name in dict.fromkeys(name for drug in self.drugs for name in drug.classes):
            self.class_names.setdefault(name, (name.replace("_", " "),))
        for also in (s.entry for s in self._entries if isinstance(s.entry, DrugClass)):
            self.class_names[also.name] = (*self.class_names.get(also.name, ()), *also.aliases)
        grouped = [
            (normalise(also), i)
            for i, drug in enumerate(self.drugs)
            for name in drug.classes
            for also in (name, *self.class_names[name])
        ]
        self.by_name, self.by_class = NameIndex(named), NameIndex(grouped)
        caps = [normalise(cap.drug) for rule in self.rules for cap in rule.then.cap_dose]
        self.capped_drugs = sum(1 << i for i in {i for name in caps for i in self.by_name.meaning.get(name, ())})
        self._substances: tuple[Drug | Allergen, ...] = (*self.drugs, *self.allergens)
        reacting = [(normalise(c), i) for i, entry in enumerate(self._substances) for c in entry.cross_reactivity]
        known = [(normalise(name), i) for i, entry in enumerate(self._substances) for name in entry.names]
        self._by_substance, self._by_reaction = NameIndex([*known, *grouped]), NameIndex(reacting)
        self._parents: dict[str, set[str]] = {}
        for child, above in (parents or {}).items():
            self._parents.setdefault(condition_key(child), set()).update(map(condition_key, above))
        self._in_hierarchy = set(self._parents).union(*self._parents.values())

    # -- who is meant

    def drugs_of(self, term: str) -> tuple[int, ...]:
        """The drugs (their places in `drugs`) that a name, brand, alias or class stands for; () when unknown."""
        key = normalise(term)
        return self.by_name.meaning.get(key) or self.by_class.meaning.get(key) or ()

    def taken(self, entry: Sequence[str]) -> set[int]:
        """The drugs that an entry of a patient's list mentions ("Coumadin 5 mg tablet" is warfarin).

        An entry that mentions a class counts as each drug of the class: which one it is, is not known.
        """
        return {i for text in entry for i in self.by_name.mentioned(text) | self.by_class.mentioned(text)}

    def substances(self, entry: Sequence[str]) -> set[int]:
        """The substances that an entry of a list of allergies mentions, by name, class or class of cross-reactivity."""
        return {i for text in entry for i in self._by_substance.mentioned(text) | self._by_reaction.mentioned(text)}

    def substances_of(self, terms: Iterable[str], *, cross_reactive: bool) -> set[int]:
        """The substances that these terms of a rule stand for, and what reacts together with one of them."""
        keys = [normalise(term) for term in terms]
        indexes = (self._by_substance, self._by_reaction)
        found = {i for key in keys for index in indexes for i in index.meaning.get(key, ())}
        if not cross_reactive:
            return found
        shared = {normalise(c) for i in found for c in self._substances[i].cross_reactivity}
        return found | {i for c in shared for i in self._by_reaction.meaning.get(c, ())}

    def ancestors(self, condition: str) -> set[str]:
        """The condition itself and everything that it is a kind of, as `condition_key`s."""
        found, waiting = set(), [condition_key(condition)]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self._parents.get(one, ())
        return found

    def knows_condition(self, condition: str) -> bool:
        """Whether the hierarchy holds this condition."""
        return condition_key(condition) in self._in_hierarchy

    def forbidden_drugs(self, forbid: Forbid | None) -> tuple[int, ...]:
        """The drugs that a conclusion forbids."""
        if forbid is None:
            return ()
        drugs = [i for name in forbid.drugs for i in self.by_name.meaning.get(normalise(name), ())]
        drugs += [i for name in forbid.classes for i in self.by_class.meaning.get(normalise(name), ())]
        return tuple(dict.fromkeys(drugs))

    def reasons(self, rule: Rule) -> Iterator[tuple[str, Reason]]:
        """Every name that this rule forbids, as listed, with the reason."""
        citation = str(rule.citation or "no citation")
        for i in self.forbidden_drugs(rule.then.forbid):
            for name in self.drugs[i].names:
                yield name, Reason(rule.label, citation, name, rule.severity)

    # -- what is wrong

    def problems(self) -> list[Problem]:
        """Everything that is wrong between entries: duplicates, unknown references, names too short to match."""
        found: list[Problem] = []
        seen: dict[tuple[type, str], str] = {}
        for sourced in self._entries:
            entry, where = sourced.entry, sourced.where
            shown = entry.id if isinstance(entry, Rule) else entry.name
            kind = {Rule: "rule id", Drug: "drug", DrugClass: "class", Allergen: "allergen"}[type(entry)]
            first = seen.setdefault((type(entry), shown if isinstance(entry, Rule) else normalise(shown)), where)
            if first != where:
                again = f"the {kind} {shown!r} again (first at {first})"
                found.append(Problem(where, again, "each once", "remove one of them"))
            if isinstance(entry, Rule):
                found += self._rule_problems(entry, where)
            elif isinstance(entry, DrugClass):
                found += self._class_problems(entry, where)
            else:
                found += self._name_problems(entry, where)
        return found + self._cycles()

    def _name_problems(self, entry: Drug | Allergen, where: str) -> list[Problem]:
        classes = (*entry.classes, *entry.cross_reactivity) if isinstance(entry, Drug) else entry.cross_reactivity
        expected = f"at least {MIN_LENGTH} letters or digits"
        found = [
            Problem(where, f"the name {name!r}, too short to be matched safely", expected, f"remove {name!r}")
            for name in (*entry.names, *classes)
            if len(normalise(name)) < MIN_LENGTH
        ]
        both = [c for c in classes if normalise(c) in self.by_name.meaning]
        return found + [
            Problem(where, f"{name!r} both as a class and as a drug's name", "one meaning", "rename the class")
            for name in both
        ]

    def _class_problems(self, entry: DrugClass, where: str) -> list[Problem]:
        expected = f"at least {MIN_LENGTH} letters or digits, and no drug's name"
        found = [
            Problem(where, f"the alias {name!r} of a class", expected, f"remove {name!r}")
            for name in entry.aliases
            if len(normalise(name)) < MIN_LENGTH or normalise(name) in self.by_name.meaning
        ]
        if normalise(entry.name) not in self.by_class.meaning:
            found.append(_unknown(where, "class", entry.name, self._spelled[1]))
        return found

    @cached_property
    def _spelled(self) -> tuple[list[str], list[str], list[str]]:
        """Every name of a drug, every class, and every name that an allergy may have."""
        drugs, classes = [n for d in self.drugs for n in d.names], [c for d in self.drugs for c in d.classes]
        return drugs, classes, [n for s in self._substances for n in (*s.names, *s.cross_reactivity)]

    def _rule_problems(self, rule: Rule, where: str) -> list[Problem]:
        drugs, classes, substances = self._spelled
        found: list[Problem] = []
        for part in parts_of(rule.when):
            if part.medications is not None:
                terms = [t for t in part.medications.any if not self.drugs_of(t)]
                found += [_unknown(where, "drug or class", t, (*drugs, *classes)) for t in terms]
            if part.allergies is not None:
                terms = [t for t in part.allergies.any if not self.substances_of([t], cross_reactive=False)]
                found += [_unknown(where, "drug, class or allergen", t, (*substances, *classes)) for t in terms]
        forbid = rule.then.forbid or Forbid(drugs=("x",))
        named = [*(rule.then.forbid.drugs if rule.then.forbid else ()), *(cap.drug for cap in rule.then.cap_dose)]
        found += [_unknown(where, "drug", n, drugs) for n in named if normalise(n) not in self.by_name.meaning]
        found += [
            _unknown(where, "class", n, classes) for n in forbid.classes if normalise(n) not in self.by_class.meaning
        ]
        if not forbid.drugs and not forbid.classes:
            expected = "`drugs` or `classes` with at least one entry"
            found.append(Problem(where, "a `forbid` that forbids nothing", expected, "name a drug or a class"))
        for phrase in (p for group in rule.then.require_phrase for p in group.any):
            if len(normalise(phrase)) < SHORT:
                expected = f"at least {SHORT} letters or digits"
                found.append(Problem(where, f"the phrase {phrase!r}, too short to be required", expected, "write more"))
        return found

    def _cycles(self) -> list[Problem]:
        looped = [c for c, above in self._parents.items() if any(c in self.ancestors(p) for p in above)]
        return [
            Problem(f"hierarchy of {c!r}", "a condition that is a kind of itself", "no circle", "remove a pair")
            for c in sorted(looped)[:5]
        ]


def parts_of(when: When | None) -> Iterator[When]:
    """Every condition of a rule, those inside `all`, `any` and `not` included."""
    if when is None:
        return
    yield when
    for child in (*(when.all or ()), *(when.any or ()), *((when.not_,) if when.not_ else ())):
        yield from parts_of(child)


def _unknown(where: str, what: str, name: str, known: Sequence[str]) -> Problem:
    close = difflib.get_close_matches(name.casefold(), dict.fromkeys(k.casefold() for k in known), n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"add {name!r} under `drugs`"
    return Problem(where, f"the unknown {what} {name!r}", f"a {what} listed under `drugs`", fix)
