"""The items of the grammar: the ways in which a text so far can be read as free text and stretches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Which = Literal["literals", "names", "dates"]


@dataclass(frozen=True, slots=True)
class Free:
    """Free text.

    `at` : `begin` (a number may begin), `ranged` (behind "5 to"), `sign` (behind a sign or "Note": no digits), `glued`
    (no digits before a space), `word`, `bracket` (dates only), `spaced` (behind a number and a space), `dash` (behind a
    number and a hyphen), `line` (behind a number and a line end), `inner` (behind a number and a parenthesis),
    `operator`, `due` (a result has to follow).
    """

    at: str
    words: tuple[int, ...]
    left: int
    due: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Before the digits: a place in the trie of leads."""

    node: int
    ranged: bool
    due: int


@dataclass(frozen=True, slots=True)
class Digits:
    """In the digits, behind a lead."""

    lead: int
    node: int
    ranged: bool
    due: int


@dataclass(frozen=True, slots=True)
class Suffix:
    """Behind the digits, in the trie of suffixes of a lead; `forms` are those that the digits have."""

    lead: int
    forms: int
    node: int
    ranged: bool
    due: int


@dataclass(frozen=True, slots=True)
class Spelled:
    """In a literal of the input: of all `literals`, of `names`, or of `dates`."""

    node: int
    of: Which
    due: int


@dataclass(frozen=True, slots=True)
class Written:
    """In the result that is due."""

    at: int
    due: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Right behind a stretch: `mark` behind a full stop or comma that hugs it."""

    mark: bool
    left: int
    due: int


Item = Free | Lead | Digits | Suffix | Spelled | Written | Behind
State = frozenset[Item]
