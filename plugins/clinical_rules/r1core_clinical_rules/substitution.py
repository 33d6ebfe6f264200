"""One medication in the place of another: which one goes and which one comes.

A pattern says it by its two groups, `old` and `new`; the first pattern that fits a sentence counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1core_clinical_rules import cues
from r1core_clinical_rules.governing import Status

_OPEN = re.compile(r"\b(?:consider\w*|discuss\w*|could|might|may|if|think\w*|thought)\b[^,;:|@#]*$")
_REFUSED = re.compile(
    r"\b(?:not|never|no need|no reason|declin\w*|refus\w*|unwilling|reluctan\w+|against)\b"
    r"(?:(?!\b(?:so|and|therefore|but|because)\b)[^,;:|@#]){0,25}$"
)
ALONE = re.compile(r"\b(?:now|then|currently|presently)\b[^@#]*[@#] (?:alone|only|instead|monotherapy)\b")
_PLACES = {
    "undosed": f"(?P<old>@(?:{cues.LIST}@)*)",  # a dose is given of what is taken
    "old": f"(?P<old>{cues.ITEMS})",
    "new": f"(?P<new>{cues.ITEMS})",
    "near": "[^@#.;,]{0,25}?",
}
_PATTERNS = tuple(
    re.compile(cues.filled(pattern, cues.SETS | _PLACES))
    for pattern in (
        r"\bsub(?:stitut\w*)? {new} for {old}",
        r"{new} (?:(?:was|is|has been|be) )?substituted for {old}",
        r"\b{change}\b(?: (?:over|from|out|off|of|his|her|the))* {old}{near}(?:\b(?:to|with|by|for|onto"
        r"|and (?:put|start|give|go|try|use|place|commence))\b|{arrow}){near} ?{new}",
        r"{new}[^@#.;]{0,40}\b(?:safer|better|gentler|cheaper|easier|kinder|more \w+)(?: \w+){0,3} than {old}",
        r"{old}(?:,|;| (?:so|and|then|therefore|hence|thus|was|were|has|been|is|now|s?he|pt|subsequently|later|since))*"
        r" {change}(?: over| across)? (?:to|onto) {new}",
        r"\bfrom {old}{near}(?:\b(?:to|onto)\b|{arrow}){near} ?{new}",
        r"\b(?:to|onto) {new}{near}\bfrom {old}",
        r"{old}(?: (?:was|is|has been|to be|being|were|be))? (?:{change}|substituted)\b(?: over)?"
        r" (?:to|with|by|for|onto|{arrow}){near} ?{new}",
        r"{new}[^@#.;]{0,25}?\b(?:replac(?:es|ed|ing)|supplant(?:s|ed)|supersed(?:es|ed)|to replace"
        r"|in (?:place|lieu) of|instead of|rather than|as opposed to"
        r"|(?:chosen|preferred|selected|picked|favou?red) (?:over|to|above))(?: (?:the|his|her|current|old))* {old}",
        # what came first, and what came then
        r"\b(?:initially|originally|first|at first|formerly|to begin with|admitted|came in|on admission"
        r"|admission meds?)\b[^@#.]{0,30}?{undosed}(?:(?!\b(?:add|also|plus|and)\b)[^@#.]){0,40}?\b(?:now|then"
        r"|subsequently|later|thereafter|discharged?|home|recently|substituted|but|since)\b"
        r"(?:(?!\b(?:add|also|plus)\b)[^@#.]){0,25}{new}",
        r"{undosed} until [^@#.]{1,25}?\b(?:then|thereafter|now|after that|since)\b ?{new}",
        r"{undosed} until [^@#.,;]{1,25}[,;] ?{new}",
        r"{new} (?:thereafter|since then|now)[^@#.]{0,20}{undosed} until\b",
        # what is written, and what is taken in fact
        r"\b(?:lists?|listed|letter|chart|records?|documented|notes|on file|told|thinks?|thought|believes?)"
        r"\b[^@#.]{0,20}{undosed}[^@#.]{0,30}"
        r"\b(?:but|in fact|actually|really)\b[^@#.]{0,40}{new}",
        r"{undosed} (?:on file|on record|on the list|listed|charted|documented)[^@#.]{0,10}\b(?:but|actually)\b"
        r"[^@#.]{0,40}{new}",
        r"\bprescribed {undosed},? but [^@#.]{0,25}\b(?:dispensed|given|took|takes|taking|got|received) {new}",
        r"{undosed},? but [^@#.;]{0,40}\b{change}(?: over| across)? to {new}",
        r"{old} (?:(?:must|should|can|could|may|is|are|was|ought|will) )?(?:not|never)(?: to)?(?: be)? \w+(?: \w+)?"
        r" (?:to|with|alongside|on top of) {new}",
        r"{old} ?{arrow} ?{new}",
        r"{old}[^@#.;]{0,12}\b(?:g[ai]ven? way to|made way for|succeeded by|superseded by|phased out for) {new}",
        r"{new} (?:has |have |had )?(?:taken|took|taking|takes) (?:the place of|over from|over) {old}",
        r"{old}[^@#.]{0,40}\bin favou?r of {new}",
        r"{old} (?:is |was |now )?out,? (?:and )?{new} (?:is |was |now )?in\b",
        r"{new} (?:is |was |now )?in,? (?:and )?{old} (?:is |was |now )?out\b",
        # what was asked for, and what was given
        r"\b(?:asked for|wanted|wants|request(?:ed|ing|s)|hop(?:ed|ing) for|came in for|demand(?:ed|ing)) {old}"
        r"[^@#.]{0,30}\b(?:g[ai]ven?|got|supplied|sold|received|started|prescribed|issued|settled (?:for|on))\b"
        r"[^@#.;]{0,20}{new}",
        r"\b(?:prefers?|favou?rs?|chose|picked|selected) {new} (?:to|over|above) {old}",
    )
)


def substituted(sentence: str, starts: Sequence[int]) -> dict[int, Status]:
    """The place of each medication that another one took the place of, or that took another's, and its status.

    Parameters
    ----------
    starts : where the medications of the sentence stand.
    """
    found: dict[int, Status] = {}
    left: Status
    taken: Status
    if len(starts) < 2:
        return found
    for pattern in _PATTERNS:
        for match in pattern.finditer(sentence):
            before = sentence[max(0, match.start() - 30) : match.start()]
            if _OPEN.search(before):  # "could consider switching"
                continue
            refused = sentence[match.start()] not in "@#" and _REFUSED.search(before)  # "declines to change"
            left, taken = ("current", "denied") if refused else ("stopped", "current")
            gone, came = match.span("old"), match.span("new")
            for place, start in enumerate(starts):
                if gone[0] <= start < gone[1]:
                    found.setdefault(place, left)
                elif came[0] <= start < came[1]:
                    found.setdefault(place, taken)
        if found:
            break
    return found
