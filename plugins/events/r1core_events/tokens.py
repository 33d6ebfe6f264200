"""A clause as tokens: lower-case words, and classes in place of money, percents, dates and other numbers.

"write-down" gives two words, as "write down" does. What a number says is left out on purpose, except behind a word
such as "chapter" or "item" ("Chapter 11", "Form 8-K").

Cues ("did not", "denies", "if", "may") put the tokens behind them, up to the end of the clause or a "but", into a
scope of doubt. That is all that is understood of negation: no syntax, no cue that stands behind what it negates
except through the words that the classifier has weighed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from r1core_events.amounts import MONEY
from r1core_events.dates import DATE, QUARTER
from r1core_events.values import listed

NAME = "xname"
CLASSES = frozenset(("xmoney", "xquarter", "xdate", "xpercent", "xnumber", NAME))
_TOKEN = re.compile(
    rf"(?P<xmoney>{MONEY})|(?P<xquarter>{QUARTER})|(?P<xdate>{DATE})"
    r"|(?P<form>\b\d{1,2}-[A-Z]{1,2}\b)"
    r"|(?P<xpercent>[+\-]?\b\d[\d.,]*\s?(?:%|percent\b|per\s?cent\b|percentage\spoints?\b|basis\spoints?\b|bps?\b))"
    r"|(?P<xnumber>\b\d(?:[\d.,]*\d)?(?![^\W_]))"
    r"|(?P<word>[^\W_]+(?:['’&.][^\W_]+)*)"
    r"|(?P<stop>[;:])",
    re.IGNORECASE,
)
_COUNTED = frozenset(listed("chapter item items section rule form article title regulation schedule"))
DOUBT = frozenset(
    listed(
        "not no never neither nor cannot nothing nobody none untrue denied denies deny denying denial "
        "dismissed rejects "
        "if whether unless may might could considering consider considers suppose assume hypothetical hypothetically "
        "speculation speculated rumour rumours rumor rumors rumoured rumored unclear wondered "
        "didn't doesn't don't hasn't haven't hadn't isn't aren't wasn't weren't won't wouldn't can't couldn't"
    )
)
_ENDS = frozenset(listed("but although though however yet instead"))
TRADES = frozenset(
    listed(
        "inc corp corporation co company companies plc ltd limited llc lp sa ag nv n.v se gmbh spa bank "
        "bancorp bancshares "
        "industries foods energy therapeutics holdings group software logistics mining airlines media insurance motors "
        "semiconductors pharma pharmaceuticals stores steel chemicals partners systems technologies resources capital "
        "properties biosciences brands networks materials tools savings financial labs laboratories international"
    )
)


@dataclass(slots=True)
class Tokens:
    """The tokens of one clause.

    Parameters
    ----------
    lower : what rules are matched against.
    normal : what features are made of: as `lower`, with names folded to `NAME` and merged, "" for what was merged.
    starts, ends : characters of the raw text.
    doubt : whether the token stands in the scope of a cue. cues : whether there is any cue.
    """

    lower: list[str]
    normal: list[str]
    starts: list[int]
    ends: list[int]
    doubt: list[bool]
    cues: bool


def words(phrase: str) -> tuple[str, ...]:
    """The tokens of a trigger or a title, without names."""
    return tuple(_scan(phrase, 0, len(phrase)).lower)


def tokenize(text: str, start: int, end: int, vocabulary: Collection[str]) -> Tokens:
    """Tokens of `text[start:end]`; capitalised words outside of the vocabulary count as parts of names."""
    tokens = _scan(text, start, end)
    _fold_names(text, tokens, vocabulary)
    return tokens


def _scan(text: str, start: int, end: int) -> Tokens:
    lower: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    doubt: list[bool] = []
    inside = cues = False
    for match in _TOKEN.finditer(text, start, end):
        kind, (first, last) = match.lastgroup, match.span()
        if kind == "stop":
            inside = False
            continue
        if kind == "word" or kind == "form":
            word = match.group().lower().replace("’", "'")
            if word.endswith("'s"):
                word, last = word[:-2], last - 2
        elif kind == "xnumber" and lower and lower[-1] in _COUNTED:
            word = match.group()
        else:
            word = kind or ""
        if word in _ENDS:
            inside = False
        lower.append(word)
        starts.append(first)
        ends.append(last)
        doubt.append(inside)
        if word in DOUBT and not (word == "may" and text[first] == "M" and first > start):
            inside = cues = True
    return Tokens(lower, lower, starts, ends, doubt, cues)


def is_heading(words: Iterable[tuple[str, bool]], vocabulary: Collection[str]) -> bool:
    """Whether Most Known Words Begin With a Capital, so that a capital does not tell a name from other words."""
    known = [capital for word, capital in words if len(word) > 3 and word in vocabulary and word not in TRADES]
    return len(known) > 1 and sum(known) > 0.6 * len(known)


def _fold_names(text: str, tokens: Tokens, vocabulary: Collection[str]) -> None:
    lower, starts = tokens.lower, tokens.starts
    capital = [text[at].isupper() for at in starts]
    heading = is_heading(zip(lower, capital, strict=True), vocabulary)
    normal: list[str] = []
    before = False  # whether the last token was part of a name
    for is_capital, word in zip(capital, lower, strict=True):
        trade = word in TRADES
        unknown = is_capital and word not in vocabulary and word not in CLASSES
        name = unknown or (before and trade and (is_capital or word == "plc"))
        if name and heading and not trade and not before:
            name = False
        if not name:
            normal.append(word)
        else:
            normal.append("" if before else NAME)
        before = name
    tokens.normal = normal
