"""What the tagger gives: events, their arguments, and exact amounts. Offsets are of the raw text, in characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from r1core.api import JSON

Role = Literal["company", "amount", "date"]
Source = Literal["classifier", "both"]
ROLES: tuple[Role, ...] = ("company", "amount", "date")


def listed(words: str) -> tuple[str, ...]:
    """Words between blanks."""
    return tuple(words.split())


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount; `currency` is an ISO 4217 code, "" where the text names none that is understood."""

    value: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Argument:
    """A company, an amount or a date that stands in the clause of an event.

    Parameters
    ----------
    start, end : characters `[start, end)` of the raw text.
    value : the name for a company; `Money`; for a date ISO 8601 as far as the text goes ("2024-03-03", "2024-03",
        "2024", "2024-Q2"), "Q2" for a quarter without a year, "--03-03" for a day without one, and a weekday's name.
    """

    role: Role
    start: int
    end: int
    value: str | Money

    def as_json(self) -> JSON:
        """The argument as JSON; an amount is a string, so that it stays exact."""
        if isinstance(self.value, Money):
            value: JSON = {"value": str(self.value.value), "currency": self.value.currency}
        else:
            value = self.value
        return {"role": self.role, "start": self.start, "end": self.end, "value": value}

    @staticmethod
    def from_json(stored: Mapping[str, JSON]) -> Argument:
        """The inverse of `as_json`."""
        value = stored["value"]
        if isinstance(value, Mapping):
            value = Money(Decimal(value["value"]), value["currency"])
        return Argument(stored["role"], stored["start"], stored["end"], value)


@dataclass(frozen=True, slots=True)
class Event:
    """One event that a text reports.

    Parameters
    ----------
    type : `group/type`.
    probability : calibrated on generated text (a fraction); no claim for text of another kind.
    start, end : the words that speak for the event: a trigger phrase, else the run of words that the classifier
        weighs most.
    source : "both" where a trigger stands in the clause as well, else "classifier".
    """

    type: str
    probability: float
    start: int
    end: int
    source: Source
    arguments: tuple[Argument, ...] = ()

    def as_json(self) -> JSON:
        """The event as JSON."""
        return {
            "type": self.type,
            "probability": self.probability,
            "start": self.start,
            "end": self.end,
            "source": self.source,
            "arguments": [argument.as_json() for argument in self.arguments],
        }

    @staticmethod
    def from_json(stored: Mapping[str, JSON]) -> Event:
        """The inverse of `as_json`."""
        arguments = tuple(Argument.from_json(one) for one in stored["arguments"])
        return Event(stored["type"], stored["probability"], stored["start"], stored["end"], stored["source"], arguments)
