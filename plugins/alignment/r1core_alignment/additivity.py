"""Which concepts may be added and subtracted over time: amounts of money, unless their name says otherwise.

A quarter of an average, a ratio or an amount per share is no difference of two longer ones. What is not known to be a
flow of money is not derived; a caller who knows better names it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

_CURRENCY = re.compile(r"[A-Z]{3}")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_UNSUMMABLE = frozenset(
    ("average", "per", "maximum", "minimum", "highest", "lowest", "ratio", "percent", "percentage", "eps")
)


def why_not_additive(
    concept: str, unit: str, additive: Collection[str] = (), non_additive: Collection[str] = ()
) -> str | None:
    """Why quarters and twelve months of a concept are not derived, or None where they are.

    `additive` and `non_additive` name concepts for which the caller decides.
    """
    names = {concept, concept.rpartition(":")[2]}
    if names & set(non_additive):
        return "it is named as not additive"
    if names & set(additive):
        return None
    if not _CURRENCY.fullmatch(unit):
        return f"its unit {unit!r} is no currency, so its periods are not known to add up"
    said = _told_against(concept)
    return f"its name says {said!r}, so its periods do not add up" if said else None


@cache
def _told_against(concept: str) -> str:
    """The first word of a name that speaks against adding, or nothing."""
    return min({word.lower() for word in _WORD.findall(concept.rpartition(":")[2])} & _UNSUMMABLE, default="")
