"""What may stand around a cue, and changes what it says; patterns for `governing.py`."""

from __future__ import annotations

import re

# where another statement begins
TURN = re.compile(
    r"[,;:|]|\b(?:and|so|which|who|that|then|now|today|but|before|after|when|since|because|once|therefore)\b"
)
# between a medication and what is said of it
PREDICATE = re.compile(r"(?:\s|\b(?:was|were|is|are|has|have|had|been|being|be|to|then|also|now|since|it)\b)*")
# a cue that governs the next medication goes on so
OBJECT = re.compile(r"(?: (?:taking|using|to|on|of|his|her|all|both|for))* ?[@#]")
# between a "not" and what it turns round
CLOSE = re.compile(r"(?:(?!\b(?:due to|because|since|so|and|but|or)\b)[^,;:|.()]){0,32}")
# "if he does not"
IF_NOT = re.compile(
    r"\b(?:if|when|unless|whenever) (?:i|s?he|they|we|pt|patient|the patient) (?:do|does|did|has|have|is) $"
)
# "without it she is housebound"
WERE_IT_NOT = re.compile(r"without (?:his |her |my )?[@#],? (?:s?he|i|they|his|her|my|life)\b")
# "no allergies except"
REACTIONS = re.compile(r"\b(?:allerg\w+|intoleranc\w+|reactions?|sensitivit\w+)\W*$")
# "if he bleeds, stop"
CONDITION = re.compile(
    r"(?:\bif (?!(?:possible|able|tolerated|agree\w*|ok)\b)"
    r"|(?:^|[,;] )should (?:s?he|they|it|there|the|pt|patient|pain|symptoms|bleeding)\b)[^@#;:.]{2,40}$"
)
BASE_FORM = re.compile(r"(?:stop|hold|withhold|discontinue|cease|omit|pause|suspend|interrupt)$")
# "lost without"
NEEDED = re.compile(
    r"\b(?:lost|worse|struggl\w+|die[sd]?|suffer\w*|miserable|rarely|seldom|helpless|unbearable|bad|nothing|hard|pain)"
    r" (?:\w+ )?$"
)
# "where it failed"
REASON = re.compile(r"\b(?:where|given|after|because|since|as|when|once|though)(?: the| his| her)? $")
# an object of its own
IT = re.compile(r"\b(?:it|them|this|that|these|one)\b")
# "stopped his statin but not"
BUT_NOT = re.compile(r"\b(?:stopp|discontinu|ceas|held|quit|withdr|paus)\w*\b(?:(?!\b(?:takes|on|uses)\b)[^;])*\bbut $")
# "would suggest stopping"
PROPOSED = re.compile(r"\b(?:suggest|propos|recommend|advis)\w*\b[^@#,;]*$")
