"""What one request allows, as tries: leads, digits, suffixes by lead, literals, results. Made once for each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from r1core_numeric.claims import Allowed
from r1core_numeric.execute import Result
from r1core_numeric.renderings import Form, forms, frames
from r1core_numeric.tries import Numbering, Trie
from r1core_numeric.values import Number, Unit

BEHIND, BARE, WORDS, MEASURED, MONEY, DATED, SLASHED, NAMED = 1, 2, 4, 8, 16, 32, 64, 128
"""What is known of the number that stands right before: bits of a state behind one.

BEHIND: there is one. BARE: no scale or unit of its own. WORDS: it was in words. MEASURED: a measure ("days") would
change it. MONEY: it is money and not per share. DATED: it is a date. SLASHED: a slash hugs it. NAMED: it is a name
such as "Note 5".
"""


@dataclass
class Lexis:
    """The tries of one request.

    Attributes
    ----------
    digits : spellings of digits; their bits are forms.
    leads : what may stand before digits; `lead_forms[i]` are the forms that lead i may have, `lead_money[i]` whether it
        states a currency, so that a measure behind the number says nothing of its unit.
    suffixes : for each lead, what may stand behind; bits are forms. The second list is for the far end of a range.
    literals, names, dates : spellings that stand as they are: all of them, those that are no quantity, and those that
        may stand in parentheses; bits are kinds of what they leave behind (`behind`).
    results : what each result is written as, in order.
    """

    digits: Trie = field(default_factory=Trie)
    leads: Trie = field(default_factory=Trie)
    lead_forms: list[int] = field(default_factory=list)
    lead_money: list[bool] = field(default_factory=list)
    suffixes: list[Trie] = field(default_factory=list)
    ranged: list[Trie] = field(default_factory=list)
    literals: Trie = field(default_factory=Trie)
    names: Trie = field(default_factory=Trie)
    dates: Trie = field(default_factory=Trie)
    results: list[tuple[str, int]] = field(default_factory=list)
    left_by: dict[int, int] = field(default_factory=dict)
    behind: Numbering[int] = field(default_factory=Numbering)


def lexis(may: Allowed, results: Sequence[Result] = ()) -> Lexis:
    """Make the tries of what an answer may state.

    Parameters
    ----------
    results : those that are due, in order.
    """
    made, bits, lead_ids = Lexis(), Numbering[Form](), Numbering[str]()
    for claim in may.claims:
        for form, digits in forms(claim, may):
            made.digits.add(digits, 1 << bits(form))
    for form, bit in bits.of.items():
        made.left_by[1 << bit] = _left(form.unit, bare=form.scale == 0)
        for frame in frames(form):
            at = lead_ids(frame.lead)
            if at == len(made.lead_forms):
                made.lead_forms.append(0)
                made.lead_money.append(frame.lead.strip("(+-") != "")
                made.suffixes.append(Trie())
                made.ranged.append(Trie())
            made.lead_forms[at] |= 1 << bit
            made.suffixes[at].add(frame.suffix, 1 << bit)
            if frame.suffix in ("", ")"):
                made.ranged[at].add(frame.suffix, 1 << bit)
    for lead, at in lead_ids.of.items():
        made.leads.add(lead, 1 << at)
    for text, number in may.literals:
        left = 1 << made.behind(_left_by_literal(number))
        made.literals.add(text, left)
        if number.kind != "quantity":
            made.names.add(text, left)
        if number.kind in ("date", "year"):
            made.dates.add(text, left)
    for result in results:
        number = result.written.number
        left = _left(number.unit, bare=number.scale == 0 and number.unit.name not in _OWN)
        made.results.append((result.written.text, left))
    return made


_OWN = ("percent", "basis_point", "multiple")


def _left(unit: Unit, *, bare: bool) -> int:
    """What a number of this unit leaves behind it."""
    left = BEHIND | (BARE if bare and unit.name not in _OWN else 0)
    if unit.name and not unit.per:
        left |= MEASURED
    if unit.is_currency and not unit.per:
        left |= MONEY
    return left


def _left_by_literal(number: Number) -> int:
    if number.kind == "quantity":
        left = _left(number.unit, bare=True)
        return left | (WORDS if number.note == "in words" else 0)
    if number.kind in ("label", "ordinal"):
        return BEHIND | WORDS | DATED | NAMED
    return BEHIND | (DATED if number.kind == "date" else MEASURED)
