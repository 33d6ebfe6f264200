"""What a sentence says of the concepts that it mentions: absent, supposed, past, or somebody else's.

After NegEx (Chapman et al. 2001, "A simple algorithm for identifying negated findings and diseases in discharge
summaries") and ConText (Harkema et al. 2009, "ConText: an algorithm for determining negation, experiencer, and temporal
status from clinical reports"): a trigger reaches forwards or backwards to the end of its sentence, or to the next term
that ends its reach. ConText's hypothetical and what later versions call uncertain are one flag here. The terms below
are a selection of ours after those papers; a trigger inside a mention ("absent speech") says nothing of it.

Not covered: languages other than English, sections of a note ("Family history:" reaches to the end of its sentence),
double negation, and who has what where a sentence changes the subject without a word that says so.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Flag = Literal["negated", "uncertain", "historical", "family"]
FLAGS: tuple[Flag, ...] = ("negated", "uncertain", "historical", "family")

_BE = r"(?:is|are|was|were|has been|have been|had been|being)"
_SEEN = r"(?:seen|present|found|noted|observed|detected|identified|evident|reported|demonstrated|visualized|documented)"
_SHOW = r"(?:have|had|has|show|exhibit|demonstrate|reveal|develop|suffer(?:ed)? from|complain of|report|appreciate|see)"
_KIN = (
    r"(?:(?:grand|step|half-?)?(?:mother|father|parent|brother|sister|sibling|son|daughter)s?|"
    r"(?:great )?(?:aunt|uncle|cousin|nephew|niece)s?|mom|dad|relatives?)"
)
_SAYS = (
    r"(?:report|state|say|said|note|describe|deny|denie|complain|mention|notice|observe|recall|brought|bring|give|gave|"
    r"think|believe|feel|felt|explain|is concerned|are concerned|was concerned|were concerned)"
)

# For each flag: terms that look like a trigger and are none, triggers that reach forwards, those that reach backwards.
_TERMS: dict[Flag, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "negated": (
        (
            r"gram[- ]negative",
            r"not only",
            r"not necessarily",
            r"no (?:significant |interval |definite )*changes?",
            r"no (?:further|increase|longer able)",
            r"not (?:been )?ruled out",
            r"(?:can ?not|could not|not) (?:be )?"
            r"(?:exclude|rule out|ruled out|excluded)",
            r"without (?:further|difficulty)",
            r"no doubt",
            r"no other",
            r"not certain (?:if|whether)",
            r"not (?:able|possible|improve|resolve|respond|known)\w*",
        ),
        (
            r"no(?: (?:evidence|signs?|history|indication|findings?|symptoms|features|complaints?) (?:of|for))?",
            rf"(?:not|never|n[o']t)(?: {_SHOW})?",
            r"without(?: any)?(?: (?:evidence|signs?) of)?",
            r"den(?:y|ies|ied|ying)",
            r"absence of",
            r"lack(?:s|ed|ing)?(?: of)?",
            r"free of",
            r"negative for",
            r"fail(?:s|ed)? to (?:show|reveal)",
            r"rul(?:es|ed) out",
            r"exclud(?:es|ed)",
            r"neither",
            r"nor",
            r"none of",
            r"unremarkable for",
        ),
        (
            rf"{_BE} (?:not|never)(?: {_SEEN})?",
            rf"(?:not|never) {_SEEN}",
            r"(?:was|were|been|is|are) ruled out",
            rf"{_BE} (?:absent|excluded|negative|denied)",
            r"unlikely",
            r"(?:has|have|had) resolved",
        ),
    ),
    "uncertain": (
        (r"may (?:19|20)\d\d", r"in may", r"if any", r"as if", r"even if"),
        (
            r"possib(?:le|ly)",
            r"probab(?:le|ly)",
            r"presum(?:ed|ptive|ably)",
            r"suspect(?:ed|s)?",
            r"suspicious (?:of|for)",
            r"suspicion (?:of|for)",
            r"may(?: be| have| represent)?",
            r"might(?: be| have)?",
            r"could (?:be|have|represent)",
            r"suggest(?:s|ed|ive|ing)?(?: of)?",
            r"consider(?:ed)?",
            r"likely",
            r"question(?:able| of)",
            r"versus",
            r"vs",
            r"(?:can ?not|could not|not) (?:be )?(?:exclude|rule out)",
            r"to rule out",
            r"rule out",
            r"r/o",
            r"concern(?:ing|ed)? for",
            r"evaluat(?:e|ed|ion) for",
            r"work-?up for",
            r"screen(?:ed|ing)? for",
            r"if",
            r"risk (?:of|for)",
            r"in case of",
            r"should (?:he|she|the patient|you|they)",
            r"differential(?: diagnosis)?",
        ),
        (
            r"(?:is|are|was|were) (?:suspected|possible|considered|likely|questioned|presumed)",
            r"not (?:been )?ruled out",
            r"(?:can ?not|could not) be (?:excluded|ruled out)",
            r"to be (?:excluded|ruled out)",
        ),
    ),
    "historical": (
        (
            r"(?:family|social) history",
            r"natural history",
            r"history (?:and|taking|form)",
            r"prior to",
            r"poor historian",
        ),
        (
            r"(?:past |previous |medical |surgical |remote )*history(?: of)?",
            r"h/o",
            r"previous(?:ly)?",
            r"prior",
            r"status[- ]post",
            r"s/p",
            r"formerly",
            r"in the past",
            r"as (?:a|an) (?:child|infant|teenager)",
            r"past",
        ),
        (
            r"(?:days?|weeks?|months?|years?) (?:ago|earlier|before)",
            r"in the past",
            r"(?:has|have|had) resolved",
            r"in (?:childhood|infancy)",
            r"as (?:a|an) (?:child|infant|teenager)",
        ),
    ),
    "family": (
        (
            rf"{_KIN}(?: and {_KIN})?(?: (?:also|further|both))? {_SAYS}\w*",
            rf"(?:according to|by|per|with) (?:\w+ )?{_KIN}",
            r"(?:consanguineous|non-?consanguineous|unrelated|healthy|unaffected) (?:parents?|mother|father|couple)",
            r"(?:maternal|paternal) age",
        ),
        (
            r"family history(?: of| for)?",
            r"familial history(?: of)?",
            r"fam(?:ily)? hx",
            r"fhx?",
            rf"(?:(?:maternal|paternal|affected) )*{_KIN}(?:'s)?",
            r"family members?",
            r"runs in the family",
        ),
        (r"in (?:the|his|her|their) family", rf"in (?:his|her|their|the|a|one|two) (?:\w+ )?{_KIN}"),
    ),
}

_PRESENT = r"(?:present|complain|develop|report|show)(?:s|ed|ing)?|has|had|have"
_BUT = (r"but", r"however", r"although", r"though", r"nevertheless", r"yet", r"except", r"apart from", r"aside from",
        r"still", r"which", r"who", r"whereas")  # fmt: skip
_CAUSE = r"(?:cause|source|reason|etiology|origin)s? (?:of|for)|secondary to|due to|because"
_ENDS: dict[Flag, tuple[str, ...]] = {
    "negated": (*_BUT, _CAUSE, _PRESENT, r"positive for"),
    "uncertain": (*_BUT, _CAUSE, _PRESENT),
    "historical": (*_BUT, _PRESENT, r"now", r"currently", r"today", r"at present"),
    "family": (r"(?:the |our |this )?(?:patient|proband|index case)", r"(?:he|she|it)", r"but", r"whereas"),
}
# A full stop ends a sentence in front of white space and a capital, a digit or an opening mark, not behind a lone
# letter or a title. A blank line, an item of a list and a heading begin a new one.
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bvs)[.!?]+(?=\s+[A-Z0-9(\"'])"
    r"|\n\s*\n|\n(?=\s*[-*•])|\n(?=[A-Z][^.\n]{0,40}:)"
)
Kind = Literal["none", "backwards", "forwards", "end"]


@dataclass(frozen=True, slots=True)
class Context:
    """What is said of one mention."""

    negated: bool = False
    uncertain: bool = False
    historical: bool = False
    family: bool = False


@dataclass(frozen=True, slots=True)
class _Term:
    """Characters `[start, end)` of a sentence that matter to a flag."""

    start: int
    end: int
    kind: Kind


def contexts(text: str, mentions: Sequence[tuple[int, int]]) -> list[Context]:
    """Return what the text says of each mention, given as characters `[start, end)`."""
    if not mentions:
        return []
    ends = [match.end() for match in _SENTENCE_END.finditer(text)] + [len(text)]
    said: list[Context] = []
    for start, end in mentions:
        place = bisect_right(ends, start)
        begin, stop = ends[place - 1] if place else 0, max(end, ends[min(place, len(ends) - 1)])
        sentence, inner = text[begin:stop], (start - begin, end - begin)
        said.append(Context(**{flag: _holds(flag, sentence, inner) for flag in FLAGS}))
    return said


def _holds(flag: Flag, sentence: str, mention: tuple[int, int]) -> bool:
    """Whether a trigger of this flag reaches the mention."""
    start, end = mention
    before, after = [], []
    for term in _terms(flag, sentence):
        if term.end <= start:
            before.append(term)
        elif term.start >= end:
            after.append(term)
    reaching = next((term.kind for term in reversed(before) if term.kind in ("forwards", "end")), "end")
    if reaching == "forwards":
        return True
    return next((term.kind for term in after if term.kind in ("backwards", "end")), "end") == "backwards"


@lru_cache(maxsize=1024)
def _terms(flag: Flag, sentence: str) -> tuple[_Term, ...]:
    """Return the terms of a sentence in order; of two that overlap, the longer one counts, then the earlier kind."""
    found = [
        _Term(*match.span(), kind) for kind, pattern in _PATTERNS[flag].items() for match in pattern.finditer(sentence)
    ]
    kept: list[_Term] = []
    for term in sorted(found, key=lambda term: term.start - term.end):
        if all(term.end <= other.start or term.start >= other.end for other in kept):
            kept.append(term)
    return tuple(sorted(kept, key=lambda term: term.start))


def _pattern(terms: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(terms)})(?!\w)", re.IGNORECASE)


_PATTERNS: dict[Flag, dict[Kind, re.Pattern[str]]] = {
    flag: {
        "none": _pattern(none),
        "backwards": _pattern(backwards),
        "forwards": _pattern(forwards),
        "end": _pattern(_ENDS[flag]),
    }
    for flag, (none, forwards, backwards) in _TERMS.items()
}
