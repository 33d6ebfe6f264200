"""Data set `medical/diagnosis`: the phenotypes of a disorder as OMIM lists them, to the disease of Orphanet that it is.

The sources describe a disorder independently. An OMIM disease and an Orphanet disease are the same one here where
their names hold the same words in any order, without case and punctuation, and no other disease of either source has
that name; the annotations state no cross references. All others are left out of `val` and `test`.

`train` holds every Orphanet disease with Orphanet's own phenotypes: what a retriever over Orphanet knows too. No list
of OMIM is in it. `val` and `test` are the linked disorders, apart by a hash; their facts hold the phenotypes and the
names that the ontology retriever ranks first, for the plugin `shortlist`. Research, not clinical advice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from r1core_umls.annotations import Disease, installed_annotations, read_diseases
from r1core_umls.cache import load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.phenotypes import Retriever

from r1core import api
from r1core_medical.hashes import fingerprint_of, position_of

Split = Literal["train", "val", "test"]

NAME = "medical/diagnosis"
TASK = "diagnosis"
TEMPLATE = "Which rare disease shows these signs?\n{signs}"
SHOWN = 6
"""Phenotypes in a prompt, those of the most information."""
CANDIDATES = 10
"""Names that the retriever proposes."""
VAL = 0.4
"""Share of the linked disorders on which choices are made; the others are the test."""


def comparison_form(name: str) -> str:
    """Equal for names of the same words in any order, whatever their case and punctuation."""
    return " ".join(sorted(re.findall(r"\w+", name.casefold())))


def linked(diseases: Iterable[Disease]) -> list[tuple[Disease, Disease]]:
    """Return OMIM and Orphanet diseases of one name that no other disease of the same source has; the order of OMIM."""
    named: dict[str, dict[str, list[Disease]]] = {"OMIM": defaultdict(list), "ORPHA": defaultdict(list)}
    for disease in diseases:
        if disease.source in named:
            named[disease.source][comparison_form(disease.name)].append(disease)
    theirs = named["ORPHA"]
    return [
        (found[0], theirs[form][0])
        for form, found in named["OMIM"].items()
        if len(found) == 1 and len(theirs.get(form, ())) == 1
    ]


def split_of(orpha_id: str) -> Literal["val", "test"]:
    """The part of a linked disorder: SHA-256 of its Orphanet id, read as a number in [0, 1)."""
    return "val" if position_of(orpha_id) < VAL else "test"


@cache
def orphanet() -> Retriever:
    """The retriever over every Orphanet disease with a phenotype."""
    return Retriever(load_or_build(HpoSource()), [d for d in read_diseases() if d.source == "ORPHA"])


@cache
def disorders(split: Literal["val", "test"]) -> tuple[tuple[Disease, Disease], ...]:
    """The linked disorders of one part."""
    return tuple(pair for pair in linked(read_diseases()) if split_of(pair[1].id) == split)


def prompt(retriever: Retriever, phenotypes: Iterable[str]) -> str:
    """The question about a patient with these phenotypes: the most informative ones, by their names."""
    order = sorted(phenotypes, key=lambda term: (-retriever.information(term), term))
    return TEMPLATE.format(signs="; ".join(retriever.name(term) for term in order[:SHOWN]))


def names_of(diseases: Sequence[Disease]) -> list[str]:
    """The names of diseases, each once, in their order."""
    return list(dict.fromkeys(disease.name for disease in diseases))


class Diagnosis:
    """The data set as r1core reads it."""

    name = NAME
    tasks: Mapping[str, api.Task] = MappingProxyType(
        {TASK: api.Task(TASK, cluster="orpha", description="phenotypes to an Orphanet disease, across sources")}
    )

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split, in the order of the annotations.

        Raises
        ------
        api.UserError : when the package that holds the annotations is absent.
        """
        retriever = orphanet()
        if split == "train":
            yield from (_example(retriever, disease, disease) for disease in retriever.diseases)
            return
        for query, target in disorders(split):
            found = [disease for disease, _ in retriever.rank(query.phenotypes, CANDIDATES)]
            yield _example(retriever, query, target, names_of(found))

    def input_files(self) -> tuple[Path, ...]:
        """The annotations and the ontology, so that `verify` can recheck them."""
        return (installed_annotations(), HpoSource().path())

    def fingerprint(self) -> str:
        """SHA-256 of both files and of what shapes a row."""
        return fingerprint_of(self.input_files(), (NAME, TEMPLATE, SHOWN, CANDIDATES, VAL))


def _example(retriever: Retriever, query: Disease, target: Disease, candidates: Sequence[str] = ()) -> api.Example:
    facts: dict[str, api.JSON] = {"phenotypes": sorted(query.phenotypes)}
    return api.Example(
        id=f"diagnosis/{query.id}",
        messages=(
            api.Message("user", prompt(retriever, query.phenotypes)),
            api.Message("assistant", target.name),
        ),
        task=TASK,
        source=NAME,
        facts=facts | ({"candidates": list(candidates)} if candidates else {}),
        fields={"orpha": target.id, "described_by": query.id},
    )
