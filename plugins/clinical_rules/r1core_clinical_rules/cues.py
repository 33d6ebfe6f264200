"""The cues of `cues.toml` as patterns, and how a sentence is brought into the shape that they are written for.

In that shape a medication with what is written of its dose and form is one character, `#` where there is a dose and
`@` where there is none, and shorthand is written out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

LIST = (
    r"[\s,/&+\[\]]*(?:(?:and|or|nor|any|other|the|a|an|his|her|all|either|both|also|such as|like|including|include"
    r"|e\.g\.|i\.e\.|mainly)(?![a-z])[\s,/&+(\[\]-]*)*"
)
ITEMS = rf"[@#](?:(?:\s*\([^()]*\))?{LIST}[@#])*"
_DATA = tomllib.loads(files("r1core_clinical_rules").joinpath("cues.toml").read_text(encoding="utf-8"))


def filled(pattern: str, known: Mapping[str, str]) -> str:
    """A pattern with every {name} of a set replaced by its words."""
    return re.sub(r"\{([a-z_]+)\}", lambda match: known[match[1]], pattern)


def _any(words: Sequence[str]) -> str:
    return f"(?:{'|'.join(words)})"


def _built(sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The sets as patterns; one may name those before it."""
    known: dict[str, str] = {}
    for name, words in sets.items():
        known[name] = filled(_any(words), known)
    # What ends a statement that has no object of its own ("was stopped in May", not "stopped smoking").
    known["closed"] = rf"(?=\W*(?:$|[.,;:)(\]?!/|-]|\d|{known['closed']}\b))"
    known["be"] = rf"(?:{known['be']} )*"
    known["beside"] = r"^[^\w@#]{0,3}"
    return known


SETS = _built(_DATA["sets"])


def _pattern(cues: Sequence[Mapping[str, Any]]) -> re.Pattern[str]:
    """One pattern for all, each in a group `kind__place`."""
    parts = []
    for place, cue in enumerate(cues):
        pattern = cue.get("pattern") or cue.get("first", r"\b") + _any(cue["words"]) + cue.get("then", r"\b")
        parts.append(f"(?P<{cue['says']}__{place}>{filled(pattern, SETS)})")
    return re.compile("|".join(parts))


BEFORE, AFTER = _pattern(_DATA["before"]), _pattern(_DATA["after"])
DOUBT, DOUBT_BEHIND = _pattern(_DATA["doubt"]), _pattern(_DATA["doubt_behind"])
DOUBT_BEFORE, DOUBT_AFTER = _pattern(_DATA["doubt_before"]), _pattern(_DATA["doubt_after"])
# What speaks for and against taking where no cue does (`doubt.py`).
REJECTED = re.compile(rf"\b{SETS['rejected']}\b")
TAKEN_AFTER = re.compile(rf" (?:\w+ ){{0,4}}?{SETS['taken_behind']}\b")
TAKEN_BEFORE = re.compile(rf"\b{SETS['taken']}(?: {SETS['between']})*[ (]*$")
# A word that names something beside the medication, and what may stand between it and what is said of it.
CONTENT = re.compile(rf"\b(?!{SETS['plain']}\b)[a-z]{{2,}}")
SPEAKS = re.compile(
    rf"(?:[\s\d/'’%:(\[*|>=-]|\b{SETS['filler']}\b|\b(?:for|by|from|of|in|at|vs|versus|due to) (?:\w+\W+){{1,3}}?)*"
)

_NUMBER = r"\d+(?:[.,/-]\d+)*"
_UNIT = r"(?:mg|mcg|ug|g|gram|ml|cc|units?|iu|meq|mmol|%|tabs?|tablets?|caps?|capsules?|pills?|puffs?|sprays?)(?:/\w+)?"
_ROUTE = (
    r"(?:po|p\.o\.|pr|iv|i\.v\.|im|sc|subq|sq|sl|by mouth|orally|intravenous(?:ly)?|inhaled|nebulized|o[dsu]"
    r"|(?:both|left|right) eyes?)"
)
_TIMES = (
    r"(?:(?:once|twice|thrice|(?:one|two|three|four|\d) times) (?:a |per |each |every |/ ?)?(?:day|daily|week|weekly)"
    r"|every (?:\d+(?: ?- ?\d+)? ?(?:hours?|hrs?|h|days?)|other day|morning|evening|night|day|week)"
    r"|q ?\d+ ?(?:h|hr|hrs|hours?)"
    r"|(?:q\.?d|o\.?d|b\.?i\.?d|b\.?d|t\.?i\.?d|t\.?d\.?s|q\.?i\.?d|q\.?d\.?s|q\.?h\.?s|qam|qpm|h\.?s|p\.?r\.?n)"
    r"|daily|nightly|weekly|monthly|(?:at|each) (?:night|bedtime)|in the (?:morning|evening)|as (?:needed|required))"
)
_BARE = (  # "Advil 400", and no year, date or time
    r"(?!(?:19|20)\d\d\b)\d{2,4}(?![\d/.:-]*\d|[/:%-]|\s*(?:days?|weeks?|wks?|months?|mos?|years?|yrs?|hours?|hrs?|h|d"
    r"|min\w*|x|times|of|st|nd|rd|th|am|pm|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w*)\b)"
)
DOSE = re.compile(
    rf"(?:[\s,]*(?:{_NUMBER}\s?-?{_UNIT}(?![a-z])|(?<= ){_BARE}|{_NUMBER}(?=\s*(?:{_ROUTE}|{_TIMES})\b)"
    rf"|(?:{_ROUTE}|{_TIMES})(?![a-z])))+"
)
FORM = re.compile(
    r"(?:'s|-)?(?: (?:hcl|hydrochloride|sodium|er|xr|sr|xl|ec|tablets?|pills?|patch(?:es)?|cream|gel|ointment|drops"
    r"|drip|infusion|injections?|shots?|inhaler|spray|therapy|treatment|use|usage|scripts?|prescriptions?|rx|refills?"
    r"|levels?|doses?|course|order|bottle))+\b"
)
# "d/c" is a discharge before a place or a list, and a stop anywhere else; "|" is a dash between two statements.
_SHORTHAND = (
    (r"[\"“”]", ""),
    (r"-ve\b", "negative"),
    (
        r"\b(?:(?:an?|some|the|any|this|oral|po|regular|(?:once |twice )?daily|low-dose|long-term|tabs?"
        r"|tablets?|inj|caps?|t)\b\.? )+(?=[@#])",
        "",
    ),
    (
        r"\b(?:d/c|dc)(?:'?e?d)?(?= (?:home|meds?|medications?|rx|instructions|summary|(?:on|with) (?:[@#]|home)))",
        "discharge",
    ),
    (r"\b(?:d/c|dc)(?:'?d|ed)\b|\bd/?ced\b", "discontinued"),
    (r"\bd/c\b|\bdc\b", "discontinue"),
    (r"(?<=\s)-{1,2}(?![->\d=])", "|"),
    (r"\bcan(?:no|'|’)t\b", "can not"),
    (r"\bwon['’]t\b", "will not"),
    (r"n['’]t\b", " not"),
    (r"\bw/o\b", "without"),
    (r"\bc\.?/?i\.?(?:'?e?d)?\b(?= (?:to|for|in|due|because|given|with|as)\b|:? ?[@#]|\W*$)", "contraindicated"),
    (r"\bw/h\b", "withhold"),
    (r"\bintol\b\.?", "intolerance"),
    (r"\bsec(?:ondary|\.)? to\b|\b2° to\b", "due to"),
    (r"\bod(?:'?e?d)? on\b", "overdosed on"),
    (r"\bc/w\b", "continue"),
    (r"\bh/o\b|\bhx(?: of)?\b", "history of"),
    (r"\bs/p\b", "status post"),
    (r"\b(?:2/2|d/t)(?= )", "due to"),
    (r"\bf/?hx?\b|\bfam hx\b", "family history"),
    (r"\boff[ -]label\b|\b(?:off and on|on and off)\b", "sometimes"),
    (r"\bno (?:more|later|less) than\b|\bnot (?:only|just)\b|\bwhether or not\b|\bno doubt\b", "about"),
)
_WRITTEN_OUT = tuple((re.compile(pattern), text) for pattern, text in _SHORTHAND)


def written_out(sentence: str) -> str:
    """A sentence without shorthand and with single spaces."""
    for pattern, text in _WRITTEN_OUT:
        sentence = pattern.sub(text, sentence)
    return " ".join(sentence.split())
