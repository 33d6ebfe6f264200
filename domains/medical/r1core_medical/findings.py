"""Findings of the Human Phenotype Ontology with the specialty of their branch, for the made-up patients.

A finding is a term below one branch of HPO that has a specialty, and below no other: an eye tumour is none. Its label
is a coarse stand-in, as that of a diagnosis is. Names that stand in another split of the diagnoses are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from r1core_umls.concepts import Concept, Tally
from r1core_umls.hpo import HpoSource

from r1core_medical.icd10 import LABELS, Icd10Specialty, comparison_form

TEMPLATE = "Which specialty does this finding belong to?\n{term}"

# Branch of HPO to the ICD-10 chapter whose label it has. Mental function, below the nervous system, comes first.
MENTAL = "HP:0011446"
BRANCHES: Mapping[str, int] = MappingProxyType(
    {
        "HP:0002664": 2,  # neoplasm
        "HP:0001871": 3,  # blood
        "HP:0000818": 4,  # endocrine system
        MENTAL: 5,
        "HP:0000707": 6,  # nervous system
        "HP:0000478": 7,  # eye
        "HP:0000598": 8,  # ear
        "HP:0001626": 9,  # cardiovascular system
        "HP:0002086": 10,  # respiratory system
        "HP:0025031": 11,  # digestive system
        "HP:0001574": 12,  # integument
        "HP:0033127": 13,  # musculoskeletal system
        "HP:0000119": 14,  # genitourinary system
        "HP:0025142": 18,  # constitutional symptoms
    }
)


class Finding(NamedTuple):
    """A term of HPO, its name and its label."""

    code: str
    text: str
    label: str


@cache
def findings() -> tuple[Finding, ...]:
    """All findings, in the order of the file.

    Raises
    ------
    api.UserError : when the package that holds HPO is absent or broken.
    """
    concepts = list(HpoSource().concepts(Tally()))
    below = {branch: _below(concepts, branch) for branch in BRANCHES}
    below["HP:0000707"] -= below[MENTAL]
    branches: dict[str, list[str]] = defaultdict(list)
    for branch, identifiers in below.items():
        for identifier in identifiers:
            branches[identifier].append(branch)
    tested = {
        comparison_form(str(example.fields["term"]))
        for split in ("val", "test")
        for example in Icd10Specialty().read(split)
    }
    return tuple(
        Finding(one.id, one.name, LABELS[BRANCHES[branches[one.id][0]]])
        for one in concepts
        if len(branches[one.id]) == 1 and comparison_form(one.name) not in tested
    )


def _below(concepts: Iterable[Concept], branch: str) -> set[str]:
    """The identifiers of everything below a branch."""
    children: dict[str, list[str]] = defaultdict(list)
    for concept in concepts:
        for parent in concept.parents:
            children[parent].append(concept.id)
    found: set[str] = set()
    left = [branch]
    while left:
        new = [one for one in children[left.pop()] if one not in found]
        found.update(new)
        left += new
    return found
