"""The company, amounts and dates of an event, from the clause that reports it.

The company is the first run of capitalised words in the clause, or in its sentence where the clause has none, that
holds a word outside of the vocabulary; a run with a legal form or a trade ("Inc.", "Bank") comes before others, one
behind "in" or a person's title after them. No list of companies is read, so a person or a place may be taken for a
company where the text gives no hint. Names in lower case, pronouns, and scripts without capitals are not found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from r1core_events.amounts import amounts
from r1core_events.dates import dates
from r1core_events.tokens import TRADES, is_heading
from r1core_events.units import Unit
from r1core_events.values import Argument, listed

_FORM = r"(?:Inc|Corp|Co|Ltd|LLC|LP|[Pp]lc|PLC|AG|SA|SE|NV|N\.V|S\.A|GmbH|Limited|Corporation|Company)\b\.?"
_WORD = r"[A-Z\u00c0-\u00d6\u00d8-\u00de][\w&\-]*(?:['’](?!s\b)\w+)?"
_RUN = re.compile(rf"(?<!\w){_WORD}(?:(?:\s&)?\s(?!{_FORM}){_WORD})*(?:,?\s{_FORM})?")
_IN_RUN = re.compile(rf"{_FORM}|{_WORD}")
_ENDS_IN_FORM = re.compile(rf"\s{_FORM}$")
_TITLES = frozenset(listed("mr mrs ms dr sir judge justice professor ceo cfo chairman chairwoman president director"))
_PLACED = frozenset(listed("in at near across throughout from into"))


def arguments(text: str, unit: Unit, vocabulary: Collection[str]) -> tuple[Argument, ...]:
    """The arguments of an event in this clause, in order of position."""
    days = list(dates(text, unit.start, unit.end))
    found = [*amounts(text, unit.start, unit.end), *days]
    name = company(text, unit.start, unit.end, vocabulary, days)
    if name is None and (unit.start, unit.end) != (unit.sentence_start, unit.sentence_end):
        days = list(dates(text, unit.sentence_start, unit.sentence_end))
        name = company(text, unit.sentence_start, unit.sentence_end, vocabulary, days)
    if name is not None:
        found.append(name)
    return tuple(sorted(found, key=lambda one: (one.start, one.end)))


def company(
    text: str, start: int, end: int, vocabulary: Collection[str], days: Sequence[Argument] = ()
) -> Argument | None:
    """The name that `text[start:end]` is most likely about; `days` are its dates, which hold no names."""
    best: tuple[int, int, int] | None = None
    for first, last in names(text, start, end, vocabulary, days):
        before = text[max(start, first - 16) : first].split()
        word = before[-1].strip(".").lower() if before else ""
        rank = 0 if _is_sure(text[first:last]) else 2 if word in _PLACED or word in _TITLES else 1
        if best is None or rank < best[0]:
            best = rank, first, last
    return None if best is None else Argument("company", best[1], best[2], text[best[1] : best[2]])


def names(
    text: str, start: int, end: int, vocabulary: Collection[str], days: Sequence[Argument] = ()
) -> Iterator[tuple[int, int]]:
    """Yield the runs of capitalised words that hold a word outside of the vocabulary."""
    known = ((word.strip(".,;:").lower(), word[0].isupper()) for word in text[start:end].split())
    heading = is_heading(known, vocabulary)
    for match in _RUN.finditer(text, start, end):
        run = [word.span() for word in _IN_RUN.finditer(text, *match.span())]
        for part in _parts(text, run, vocabulary, days, heading):
            first, last = part[0][0], part[-1][1]
            if any(not _is_known(text[a:b], vocabulary) for a, b in part):
                yield first, last


def _parts(
    text: str, run: Sequence[tuple[int, int]], vocabulary: Collection[str], days: Sequence[Argument], heading: bool
) -> Iterator[list[tuple[int, int]]]:
    """A run without known words at its ends, cut at dates, and in a heading at every known word that is no trade."""
    part: list[tuple[int, int]] = []
    for first, last in run:
        dated = any(day.start <= first < day.end for day in days)
        known = _is_ordinary(text[first:last], vocabulary)
        if dated or (known and (heading or not part)):
            if part:
                yield part
            part = []
        else:
            part.append((first, last))
    while part and _is_ordinary(text[slice(*part[-1])], vocabulary):
        part.pop()
    if part:
        yield part


def _is_ordinary(word: str, vocabulary: Collection[str]) -> bool:
    bare = word.strip(".").lower()
    return bare in vocabulary and bare not in TRADES


def _is_known(word: str, vocabulary: Collection[str]) -> bool:
    bare = word.strip(".").lower()
    return bare in vocabulary or bare in TRADES


def _is_sure(name: str) -> bool:
    words = name.split()
    return bool(_ENDS_IN_FORM.search(name)) or (len(words) > 1 and words[-1].strip(".,").lower() in TRADES)
