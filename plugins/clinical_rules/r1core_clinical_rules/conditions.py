"""A rule's `when`, compiled once: what holds of a patient, in three-valued logic, and the proof of it.

Conditions on the three lists (medications, allergies, conditions) are numbered: the bits of the entries on a patient's
lists say at once which of them hold. All others are asked one by one, and only for rules that can still apply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from r1core_clinical_rules import renal
from r1core_clinical_rules.facts import LISTS, Measurement, Patient
from r1core_clinical_rules.logic import Truth, all_of, any_of, negate
from r1core_clinical_rules.proof import Proof
from r1core_clinical_rules.rulebook import condition_key
from r1core_clinical_rules.schema import Comparison, Dated, Egfr, Lab, When
from r1core_clinical_rules.units import Quantity, UnitError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGN = {"at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}
_HOLDS = {"at_least": (0, 1), "above": (1,), "at_most": (-1, 0), "below": (-1,)}


@dataclass(frozen=True, slots=True)
class View:
    """A patient as the compiled rules see them.

    `hits` : bit i set where condition i on a list holds. `open` : lists that are incomplete, by place in `LISTS`.
    """

    patient: Patient
    hits: int
    open: tuple[bool, bool, bool]
    asked: dict[Node, Truth] = field(default_factory=dict, repr=False, compare=False)  # what was answered already


class Node(ABC):
    """A compiled condition."""

    @abstractmethod
    def holds(self, view: View) -> Truth:
        """Whether it holds of the patient."""

    @abstractmethod
    def proof(self, view: View) -> Proof:
        """Why it holds, does not hold or is unknown."""

    @abstractmethod
    def words(self) -> str:
        """The condition in words."""

    def needs(self) -> frozenset[int] | None:
        """Numbers of conditions on lists of which one must hold or be unknown, or this is false; None for no such."""
        return None

    def pair(self) -> tuple[int, int] | None:
        """The numbers of the two conditions on lists (or twice the one) that it is the conjunction of; None if not."""
        return None


class _OnList(Node):
    """A condition on one of the patient's lists, by its number."""

    def __init__(self, number: int, kind: str, terms: Sequence[str], note: str) -> None:
        self.number, self.kind, self.terms, self.note = number, LISTS.index(kind), tuple(terms), note

    def holds(self, view: View) -> Truth:
        if view.hits >> self.number & 1:
            return True
        return None if view.open[self.kind] else False

    def needs(self) -> frozenset[int]:
        return frozenset((self.number,))

    def pair(self) -> tuple[int, int]:
        return self.number, self.number

    def proof(self, view: View) -> Proof:
        listed = getattr(view.patient, LISTS[self.kind])
        entries = ", ".join(repr(" / ".join(entry)) for entry in listed.entries) or "none"
        fact = f"{LISTS[self.kind]}: {entries}{'' if listed.complete else ', the list is not known to be complete'}"
        return Proof(self.words(), self.holds(view), fact)

    def words(self) -> str:
        return f"{LISTS[self.kind]}: any of {', '.join(self.terms)}{self.note}"


class _Asked(Node):
    """A condition on one fact, which `ask` decides; `fact` tells it as it stands."""

    def __init__(self, claim: str, ask: Callable[[Patient], Truth], fact: Callable[[Patient], str]) -> None:
        self._claim, self._ask, self._fact = claim, ask, fact

    def holds(self, view: View) -> Truth:
        if self not in view.asked:
            view.asked[self] = self._ask(view.patient)
        return view.asked[self]

    def proof(self, view: View) -> Proof:
        return Proof(self._claim, self.holds(view), self._fact(view.patient))

    def words(self) -> str:
        return self._claim


class _Joined(Node):
    """`all` or `any` of several conditions."""

    def __init__(self, word: str, children: Sequence[Node]) -> None:
        self._word, self._children, self._all = word, tuple(children), word == "all"

    def holds(self, view: View) -> Truth:
        values = (child.holds(view) for child in self._children)
        return all_of(values) if self._all else any_of(values)

    def pair(self) -> tuple[int, int] | None:
        numbers = [child.number for child in self._children if isinstance(child, _OnList)]
        if not self._all or len(numbers) != len(self._children) or len(numbers) > 2:
            return None
        return numbers[0], numbers[-1]

    def needs(self) -> frozenset[int] | None:
        each = [child.needs() for child in self._children]
        known = [found for found in each if found is not None]
        if self._all:
            return min(known, key=len) if known else None
        return frozenset().union(*known) if len(known) == len(each) else None

    def proof(self, view: View) -> Proof:
        return Proof(f"{self._word} of", self.holds(view), because=tuple(c.proof(view) for c in self._children))

    def words(self) -> str:
        joint = " and " if self._all else " or "
        return "(" + joint.join(child.words() for child in self._children) + ")"


class _Negated(Node):
    """`not` of a condition."""

    def __init__(self, child: Node) -> None:
        self._child = child

    def holds(self, view: View) -> Truth:
        return negate(self._child.holds(view))

    def proof(self, view: View) -> Proof:
        return Proof("not", self.holds(view), because=(self._child.proof(view),))

    def words(self) -> str:
        return f"not {self._child.words()}"


def words(when: When) -> str:
    """A condition in words, for a table."""
    return Compiler().node(when).words()


class Compiler:
    """Turns conditions into nodes; equal ones are one node or number. `on_lists` : the conditions, by number."""

    def __init__(self) -> None:
        self.on_lists: list[When] = []
        self._numbers: dict[str, int] = {}
        self._others: dict[str, Node] = {}

    def node(self, when: When) -> Node:
        """The compiled condition."""
        name, value = when.part
        if name in ("all", "any"):
            return _Joined(name, [self.node(child) for child in value])
        if name == "not":
            return _Negated(self.node(value))
        if name in LISTS:
            return self._on_list(when, name)
        return self._others.setdefault(repr(when), _asked(name, value))

    def _on_list(self, when: When, kind: str) -> _OnList:
        key = when.model_dump_json(exclude_unset=False)
        number = self._numbers.setdefault(key, len(self.on_lists))
        if number == len(self.on_lists):
            self.on_lists.append(when)
        value = getattr(when, kind)
        notes = {
            "conditions": (" or a descendant", "descendants"),
            "allergies": (" or what cross-reacts", "cross_reactive"),
        }
        note, flag = notes.get(kind, ("", ""))
        return _OnList(number, kind, value.any, note if flag and getattr(value, flag) else "")


def _asked(name: str, value: object) -> Node:
    if isinstance(value, Egfr):
        return _Asked(
            f"eGFR {_bounds(value)}", lambda p: _dated(value, p, _rates(value, p)), lambda p: _egfr_fact(value, p)
        )
    if isinstance(value, Lab):
        claim = f"{value.name} {_bounds(value)}"
        return _Asked(
            claim, lambda p: _dated(value, p, _of(p, value.name)), lambda p: _measured(value.name, _of(p, value.name))
        )
    if isinstance(value, Comparison):
        return _Asked(
            f"{name} {_bounds(value)}",
            lambda p: None if getattr(p, name) is None else _within(value, getattr(p, name)),
            lambda p: f"{name}: {'unknown' if getattr(p, name) is None else getattr(p, name)}",
        )
    if name == "pregnancy" and not isinstance(value, bool):
        wanted = value.trimester  # type: ignore[attr-defined]
        claim = f"pregnant in trimester {' or '.join(map(str, wanted))}"
        return _Asked(claim, lambda p: _in_trimester(p, wanted), _pregnancy_fact)
    fact = _pregnancy_fact if name == "pregnancy" else lambda p: f"{name}: {_plainly(getattr(p, name))}"
    return _Asked(f"{name} is {_plainly(value)}", lambda p: _equals(getattr(p, name), value), fact)


def _plainly(value: object) -> str:
    return {None: "unknown", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload]


def _equals(found: object, wanted: object) -> Truth:
    return None if found is None else found == wanted


def _in_trimester(patient: Patient, wanted: Sequence[int]) -> Truth:
    if not patient.pregnancy:
        return patient.pregnancy
    return None if patient.trimester is None else patient.trimester in wanted


def _pregnancy_fact(patient: Patient) -> str:
    trimester = f", trimester {patient.trimester or 'unknown'}" if patient.pregnancy else ""
    return f"pregnancy: {_plainly(patient.pregnancy)}{trimester}"


def _bounds(value: Comparison) -> str:
    text = " and ".join(f"{_SIGN[name]} {bound}" for name, bound in value.bounds)
    recent = getattr(value, "not_older_than", None)
    return text + (f", not older than {recent}" if recent else "")


def _within(value: Comparison, found: Quantity) -> Truth:
    """Whether every bound holds; unknown where the units do not measure the same."""
    try:
        return all(found.compare(bound) in _HOLDS[name] for name, bound in value.bounds)
    except UnitError:
        return None


def _of(patient: Patient, name: str) -> list[Measurement]:
    key = condition_key(name)
    return [lab for lab in patient.labs if condition_key(lab.name) == key]


def _dated(value: Dated, patient: Patient, found: Sequence[Measurement]) -> Truth:
    """Whether the newest value is within the bounds; unknown without a recent one, or where undated ones disagree."""
    if value.not_older_than is not None:
        found = [m for m in found if _recent(m, patient, value.not_older_than)]
    if found and all(m.date is not None for m in found):
        newest = max(m.date for m in found if m.date is not None)
        found = [m for m in found if m.date == newest]
    truths = {_within(value, m.value) for m in found}
    return truths.pop() if len(truths) == 1 else None


def _recent(measured: Measurement, patient: Patient, limit: Quantity) -> bool:
    if measured.date is None or patient.as_of is None:
        return False
    return 0 <= (patient.as_of - measured.date).days <= limit.base


def _rates(value: Egfr, patient: Patient) -> list[Measurement]:
    """The filtration rates given (of the formula asked for), or else computed from creatinine."""
    given = [m for m in patient.egfr if value.formula in (None, m.formula)]
    if given or patient.age is None or patient.sex is None:
        return given
    computed = []
    for lab in _of(patient, "creatinine"):
        try:
            if value.formula == "cockcroft-gault":
                if patient.weight is None:
                    continue
                rate = renal.cockcroft_gault(lab.value, patient.age, patient.sex, patient.weight)
            else:
                rate = renal.ckd_epi_2021(lab.value, patient.age, patient.sex)
        except UnitError:
            continue  # a child, or a creatinine in a unit that is none: the rate stays unknown
        computed.append(Measurement("egfr", rate, lab.date, value.formula or "ckd-epi-2021"))
    return computed


def _egfr_fact(value: Egfr, patient: Patient) -> str:
    rates = _rates(value, patient)
    source = "" if patient.egfr or not rates else ", computed from creatinine"
    return _measured("eGFR", rates) + source


def _measured(name: str, found: Sequence[Measurement]) -> str:
    shown = [
        _short(m.value) + (f" by {m.formula}" if m.formula else "") + (f" on {m.date}" if m.date else "") for m in found
    ]
    return f"{name}: {', '.join(shown) or 'unknown'}"


def _short(value: Quantity) -> str:
    if len(value.value.as_tuple().digits) > 8:
        return f"{value.value:.2f} {value.unit.name}"
    return str(value)
