"""Orders in free text: which medication, what is said of it, and dose, route and frequency as they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from r1core_clinical_rules.audit import ROUTES
from r1core_clinical_rules.doses import Dose, doses_in
from r1core_clinical_rules.folding import fold
from r1core_clinical_rules.governing import Status
from r1core_clinical_rules.medications import Mention, Recogniser, ordinary_words
from r1core_clinical_rules.status import statuses
from r1core_clinical_rules.units import Quantity

REACH = 60  # characters behind a name in which its dose, route and frequency stand
_ROUTE = re.compile("|".join(rf"(?P<{route}>\b(?:{written})(?![a-z0-9]))" for route, written in ROUTES.items()))
_FREQUENCY = re.compile(
    r"\b(?:(?:once|twice|thrice|(?:one|two|three|four|\d) times) (?:a |per |each |every |/ ?)?(?:day|daily|week|weekly)"
    r"|every (?:\d+(?: ?- ?\d+)? (?:hours?|hrs?|h|days?)|other day|morning|evening|night|day|week)"
    r"|q ?\d+ ?(?:h|hr|hrs|hours?)"
    r"|(?:q\.?d|o\.?d|b\.?i\.?d|b\.?d|t\.?i\.?d|t\.?d\.?s|q\.?i\.?d|q\.?d\.?s|q\.?h\.?s|qam|qpm|h\.?s|p\.?r\.?n)\b\.?"
    r"|daily|nightly|weekly|monthly|at (?:night|bedtime)|as needed|as required|once)"
)
_WORD = re.compile(r"(?<![\w'’-])[^\W\d_]{4,}(?![\w'’])")
_AMOUNT = re.compile(
    r"[ (]{1,2}\d[\d.,/-]* ?(?:mg|mcg|ug|g|ml|units?|iu|meq|mmol|%|tabs?|tablets?|caps?|capsules?|puffs?)(?![a-z])"
)
_TAKES = re.compile(
    r"\b(?:tak(?:e|es|ing)|start(?:s|ed)?|continues?|resumed?|restart(?:ed)?|prescribed?|giv(?:e|en)|add(?:ed)?|us(?:es|ing)"
    r"|refill|rx:?) (?:her |his |the )?$"
)


@dataclass(frozen=True, slots=True)
class Unread:
    """A word in the place of a drug, at the characters `start` to `end` of a text, that no list knows."""

    start: int
    end: int
    text: str

    def as_dict(self) -> dict[str, Any]:
        """The word as JSON."""
        return {"start": self.start, "end": self.end, "text": self.text}


@dataclass(frozen=True, slots=True)
class Order:
    """A medication in a text with what the text says of it.

    `dose` : as written, "" where there is none. `amount`, `per_day` : of one dose and of one day, None where the text
    does not say or the amount is in no unit that can be compared. `route` : as in the caps of rules (PO, IV, ...).
    """

    mention: Mention
    status: Status
    dose: str = ""
    amount: Quantity | None = None
    per_day: Quantity | None = None
    route: str | None = None
    frequency: str = ""

    @property
    def taken(self) -> bool:
        """Whether the patient takes it or is to take it."""
        return self.status == "current"

    def as_dict(self) -> dict[str, Any]:
        """The order as JSON."""
        mention = self.mention
        return {
            "start": mention.start, "end": mention.end, "text": mention.text, "read_as": mention.read_as,
            "medication": mention.meaning.name, "drugs": list(mention.meaning.drugs), "class": mention.meaning.group,
            "certain": mention.certain, "status": self.status, "dose": self.dose, "route": self.route,
            "amount": None if self.amount is None else str(self.amount), "frequency": self.frequency,
            "per_day": None if self.per_day is None else str(self.per_day),
        }  # fmt: skip


def read_orders(recogniser: Recogniser, text: str) -> list[Order]:
    """Every medication in a text, in order of place, with its status, dose, route and frequency."""
    mentions = recogniser.find(text)
    if not mentions:
        return []
    if text.isascii():
        plain, spans, origin = text.lower(), [(m.start, m.end) for m in mentions], None
    else:
        folded = fold(text)
        plain, origin = folded.text, folded.origin
        spans = [_within(origin, m) for m in mentions]
    said = statuses(plain, spans)
    doses = doses_in(plain, [end for _, end in spans])
    orders = []
    for place, mention in enumerate(mentions):
        start, end = spans[place]
        before = spans[place - 1][1] if place else 0
        until = min(spans[place + 1][0] if place + 1 < len(spans) else len(plain), end + REACH)
        dose = _dose_of(doses, plain, before, start, end, until)
        detail = plain[end:until].split(";")[0]
        route, often = _ROUTE.search(detail), _FREQUENCY.search(detail)
        orders.append(
            Order(
                mention,
                said[place],
                "" if dose is None else _written(text, origin, dose),
                None if dose is None else dose.amount,
                None if dose is None else dose.per_day,
                route.lastgroup if route else None,
                "" if often is None else often[0] if often[0].count(".") > 1 else often[0].rstrip("."),
            )
        )
    return orders


def _within(origin: tuple[int, ...], mention: Mention) -> tuple[int, int]:
    """The place of a mention in the folded text."""
    inside = [i for i, at in enumerate(origin) if mention.start <= at < mention.end]
    return inside[0], inside[-1] + 1


def _dose_of(doses: list[Dose], plain: str, before: int, start: int, end: int, until: int) -> Dose | None:
    """The first dose behind a name, or else the one right before it ("400 mg of ibuprofen")."""
    behind = next((dose for dose in doses if end <= dose.start < until), None)
    if behind is not None:
        return behind
    ahead = [d for d in doses if before <= d.start and d.end <= start and plain[d.end : start].strip() in ("", "of")]
    return ahead[-1] if ahead else None


def _written(text: str, origin: tuple[int, ...] | None, dose: Dose) -> str:
    if origin is None:
        return text[dose.start : dose.end].strip()
    return text[origin[dose.start] : origin[dose.end - 1] + 1].strip()


def unread(recogniser: Recogniser, text: str) -> list[Unread]:
    """Words before an amount or behind "takes" that are neither a medication as read nor an ordinary word.

    No rule sees them: what they interact with brings no warning. An ordinary word that is a brand ("Advance") and a
    name in a list without amounts are not found.
    """
    plain = text.lower() if len(text.lower()) == len(text) else text
    read = [(mention.start, mention.end) for mention in recogniser.find(text)]
    found = []
    for match in _WORD.finditer(plain):
        start, end = match.span()
        if match[0] in ordinary_words() or any(first < end and start < last for first, last in read):
            continue
        if _AMOUNT.match(plain, end) or _TAKES.search(plain, max(0, start - 24), start):
            found.append(Unread(start, end, text[start:end]))
    return found
