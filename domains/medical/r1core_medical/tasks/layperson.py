"""Data set `medical/layperson`: how a patient says it, to the term of the Human Phenotype Ontology.

Exact synonyms of HPO that carry the type `layperson`, but for those that are another name of their own term but for
case, plural and word boundaries. Terms are apart by the folds of `r1core_umls.evaluation`, so that an encoder which is
evaluated there has seen no term of `val` and `test`. Research, not clinical advice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from r1core_umls.cache import load_or_build
from r1core_umls.concepts import Concept
from r1core_umls.evaluation import DEVELOPMENT, TEST, fold_of
from r1core_umls.hpo import HpoSource
from r1core_umls.names import tokenise

from r1core import api
from r1core_medical.hashes import fingerprint_of

Split = Literal["train", "val", "test"]

NAME = "medical/layperson"
TASK = "layperson"
TEMPLATE = "What is the medical term for this?\n{text}"
KIND = "layperson"


@dataclass(frozen=True, slots=True)
class Saying:
    """What a layperson says, and the term that it means."""

    text: str
    concept_id: str
    term: str


def normal_form(name: str) -> str:
    """Equal for names that the dictionary of `umls` takes for one."""
    return " ".join(tokenise(name).norms)


def split_of(concept: Concept) -> Split:
    """The split of a term: by its first UMLS identifier, which several terms may share, or else its own id."""
    fold = fold_of(concept.cuis[0] if concept.cuis else concept.id)
    return "test" if fold in TEST else "val" if fold in DEVELOPMENT else "train"


def sayings(concepts: Iterable[Concept]) -> dict[Split, list[Saying]]:
    """Return what laypeople say by split; what means several terms is left out."""
    meant: dict[str, set[str]] = defaultdict(set)
    found: dict[Split, dict[str, Saying]] = {"train": {}, "val": {}, "test": {}}
    for concept in concepts:
        own = [s.text for s in concept.synonyms if s.scope == "EXACT" and s.kind != KIND]
        known = {normal_form(name) for name in (concept.name, *own)}
        for synonym in concept.synonyms:
            form = normal_form(synonym.text)
            if synonym.kind == KIND and synonym.scope == "EXACT" and form and form not in known:
                meant[form].add(concept.id)
                found[split_of(concept)].setdefault(form, Saying(synonym.text, concept.id, concept.name))
    return {
        split: [saying for form, saying in known.items() if len(meant[form]) == 1] for split, known in found.items()
    }


@cache
def installed() -> dict[Split, list[Saying]]:
    """The sayings of the installed HPO."""
    return sayings(load_or_build(HpoSource()).concepts)


def prompt(text: str) -> str:
    """The question about one saying."""
    return TEMPLATE.format(text=text)


class Layperson:
    """The data set as r1core reads it."""

    name = NAME
    tasks: Mapping[str, api.Task] = MappingProxyType(
        {TASK: api.Task(TASK, cluster="concept", description="a layperson's words to the HPO term")}
    )

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split, in order of the terms' ids.

        Raises
        ------
        api.UserError : when the package that holds the ontology is absent.
        """
        for number, saying in enumerate(installed()[split]):
            yield api.Example(
                id=f"layperson/{split}/{number}",
                messages=(api.Message("user", prompt(saying.text)), api.Message("assistant", saying.term)),
                task=TASK,
                source=NAME,
                fields={"concept": saying.concept_id},
            )

    def input_files(self) -> tuple[Path, ...]:
        """The ontology, so that `verify` can recheck it."""
        return HpoSource().paths()

    def fingerprint(self) -> str:
        """SHA-256 of the ontology's bytes and of the question."""
        return fingerprint_of(self.input_files(), (NAME, TEMPLATE))
