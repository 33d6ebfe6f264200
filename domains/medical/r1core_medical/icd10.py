"""Data sets `medical/icd10_specialty` and `medical/icd10_specialty_titles`: which specialty treats a diagnosis.

Inclusion terms of ICD-10-CM; the second adds titles of categories to `train` and has the same `val` and `test`. A
label is the chapter of the code: a coarse stand-in for a specialty, made for classification, not for referrals.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from r1core import api
from r1core_medical.hashes import fingerprint_of, position_of
from r1core_medical.tabular import Term, parse, xml_path

Split = Literal["train", "val", "test"]

NAME = "medical/icd10_specialty"
TASK = "icd10_specialty"
TEMPLATE = "Which specialty treats this diagnosis?\n{term}"

# Chapters 20 (external causes) and 22 (special purposes) name no specialty. Short words whose first tokens differ: most
# are one token of the recipe's model. At the start of a line, not behind a space, where they would be ordinary words of
# a sentence and training would pull every sentence towards them.
LABELS: Mapping[int, str] = MappingProxyType(
    {
        1: "infection",
        2: "cancer",
        3: "blood",
        4: "hormones",
        5: "mental",
        6: "brain",
        7: "eye",
        8: "ear",
        9: "heart",
        10: "lung",
        11: "gut",
        12: "skin",
        13: "bone",
        14: "urinary",
        15: "pregnancy",
        16: "newborn",
        17: "congenital",
        18: "symptoms",
        19: "injury",
        21: "services",
    }
)

_TRAIN, _VAL = 0.75, 0.85  # upper ends of the shares of categories: 75 % train, 10 % val, 15 % test


def clean(text: str) -> str:
    """The term as shown to the model: without the qualifier `NOS` (not otherwise specified), white space collapsed."""
    return " ".join(re.sub(r",?\s*\bNOS\b", "", text).split())


def comparison_form(text: str) -> str:
    """Equal for terms that differ in case, white space or punctuation only."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def select(terms: Iterable[Term]) -> list[Term]:
    """Keep the inclusion terms that have one label and one category, each once, cleaned; file order.

    Ambiguity is judged over the whole tabular list: a term that also stands in a chapter without a label is dropped.
    """
    cleaned = [replace(term, text=clean(term.text)) for term in terms]
    categories: dict[str, set[str]] = defaultdict(set)
    for term in cleaned:
        categories[comparison_form(term.text)].add(term.category)
    kept: dict[str, Term] = {}
    for term in cleaned:
        form = comparison_form(term.text)
        if form and len(categories[form]) == 1 and term.chapter in LABELS:
            kept.setdefault(form, term)
    return list(kept.values())


def select_titles(titles: Iterable[Term], terms: Iterable[Term]) -> list[Term]:
    """Keep the titles of the train split's categories that no inclusion term and no other title equals, cleaned.

    Both are compared over the whole tabular list, so that a title cannot give away a term of another split.
    """
    cleaned = [replace(title, text=clean(title.text)) for title in titles]
    taken = {comparison_form(clean(term.text)) for term in terms}
    times = Counter(comparison_form(title.text) for title in cleaned)

    def alone(title: Term) -> bool:
        form = comparison_form(title.text)
        return form not in taken and times[form] == 1

    return [t for t in cleaned if t.chapter in LABELS and split_of(t.category) == "train" and alone(t)]


def split_of(category: str) -> Split:
    """The split of a three-character category: SHA-256 of its name, read as a number in [0, 1)."""
    position = position_of(category)
    if position < _TRAIN:
        return "train"
    return "val" if position < _VAL else "test"


@cache
def _selected(path: Path) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Inclusion terms and titles that the data sets hold."""
    found = parse(path.read_bytes(), str(path))
    return tuple(select(found.inclusion_terms)), tuple(select_titles(found.titles, found.inclusion_terms))


class Icd10Specialty:
    """The data sets as r1core reads them; see `data/card.md` for their counts and their limits.

    Parameters
    ----------
    titles : whether titles of categories follow the inclusion terms of `train`; the name then ends in `_titles`.
    """

    tasks: Mapping[str, api.Task] = MappingProxyType(
        {
            TASK: api.Task(
                name=TASK,
                choices=tuple(LABELS.values()),
                cluster="category",
                description="ICD-10-CM term to the specialty of its chapter, 20 labels",
            )
        }
    )

    def __init__(self, *, titles: bool = False) -> None:
        self.name = f"{NAME}_titles" if titles else NAME
        self._titles = titles

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split, inclusion terms before titles, each in file order.

        Raises
        ------
        api.UserError : when the package that holds the terms is absent or broken.
        """
        terms, titles = _selected(xml_path())
        chosen = (*terms, *titles) if self._titles else terms
        return (_example(term, self.name) for term in chosen if split_of(term.category) == split)

    def input_files(self) -> tuple[Path, ...]:
        """The tabular list, so that `verify` can recheck it."""
        return (xml_path(),)

    def fingerprint(self) -> str:
        """SHA-256 of the XML bytes, the name, the labels and the template of the question."""
        return fingerprint_of(self.input_files(), (self.name, sorted(LABELS.items()), TEMPLATE))


def _example(term: Term, source: str) -> api.Example:
    label = LABELS[term.chapter]
    return api.Example(
        id=f"icd10/{term.code}/{term.place}",
        messages=(
            api.Message("user", TEMPLATE.format(term=term.text)),
            api.Message("assistant", label),
        ),
        task=TASK,
        source=source,
        fields={
            "term": term.text,
            "code": term.code,
            "category": term.category,
            "chapter": term.chapter,
            "label": label,
        },
    )
