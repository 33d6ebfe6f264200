"""What a `umls/concept` span says, its JSON form, and the numbers that a layer receives for it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal

from r1core.api import JSON, SpanKind

KIND = "umls/concept"
HASHES = 2  # buckets per concept: two concepts share both with probability 2 / buckets², not 1 / buckets
Method = Literal["exact", "normalised", "abbreviation", "encoder"]


@dataclass(frozen=True, slots=True)
class LinkedConcept:
    """The concept that a stretch of text was linked to.

    Parameters
    ----------
    matched : the stretch of text itself.
    method : written exactly like the name, equal after normalisation, an abbreviation that the text defines, or a
        mention that no name equals and the encoder answered.
    alternatives : ids of the other concepts that the same surface may mean, best first.
    probability : the encoder's, of this concept; 1 where the dictionary answered.
    negated, uncertain, historical, family : what the sentence says of it (`context.py`): that it is absent; that it is
        suspected or supposed only; that it lies in the past; that somebody of the family has it.
    """

    concept_id: str
    name: str
    cuis: tuple[str, ...]
    matched: str
    method: Method
    alternatives: tuple[str, ...] = ()
    probability: float = 1.0
    negated: bool = False
    uncertain: bool = False
    historical: bool = False
    family: bool = False


def encode(value: LinkedConcept) -> JSON:
    """Return the value as a JSON object."""
    return {**asdict(value), "cuis": list(value.cuis), "alternatives": list(value.alternatives)}


def decode(data: JSON) -> LinkedConcept:
    """Return the value of a JSON object made by `encode`, or by an earlier one without probability and flags."""
    return LinkedConcept(**{**data, "cuis": tuple(data["cuis"]), "alternatives": tuple(data["alternatives"])})


def buckets_of(concept_id: str, buckets: int) -> tuple[int, int]:
    """Return two different buckets in `[0, buckets)` for a concept; the same on every machine. `buckets` >= 2."""
    digest = hashlib.blake2b(concept_id.encode("utf-8"), digest_size=16).digest()
    first = int.from_bytes(digest[:8], "little") % buckets
    step = 1 + int.from_bytes(digest[8:], "little") % (buckets - 1)
    return first, (first + step) % buckets


def span_kind(buckets: int) -> SpanKind:
    """Return the kind `umls/concept`, whose feature is the concept's two buckets (width 2)."""

    def feature(value: LinkedConcept) -> tuple[float, float]:
        first, second = buckets_of(value.concept_id, buckets)
        return float(first), float(second)

    return SpanKind(KIND, encode, decode, overlap="longest", width=HASHES, feature=feature)
