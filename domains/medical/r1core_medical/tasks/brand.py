"""Data set `medical/brand`: a brand or other trade name of a drug, to its generic name.

Names of the 100 drugs with the most such names in the dictionary of the installed `drug-named-entity-recognition`. The
dictionary does not mark brands reliably, so a name is taken for one where it is a single word of letters that shares
no run of four letters with the generic name: other spellings, salts and translations are out. Names that begin with
the same four letters stay together, so a name in `val` or `test` is of a family that `train` has not seen: what it is
a brand of cannot be looked up, only be known from elsewhere or guessed from its sound. Research, not clinical advice.
"""

from __future__ import annotations

import bz2
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from r1core import api
from r1core_medical.hashes import fingerprint_of
from r1core_medical.icd10 import split_of

Split = Literal["train", "val", "test"]

NAME = "medical/brand"
TASK = "brand"
TEMPLATE = "What is the generic name of this drug?\n{name}"
DRUGS, RUN = 100, 4
PACKAGE = "drug_named_entity_recognition"
INSTALL = "pip install --no-deps drug-named-entity-recognition==2.0.9"


def dictionary_path() -> Path:
    """Where the installed wheel keeps its names.

    Raises
    ------
    api.UserError : when the package is absent.
    """
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / "drug_ner_dictionary.pkl.bz2" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise api.UserError(f"names of drugs are read from {PACKAGE!r}, which is not installed", fix=INSTALL)
    return path


def is_brand(name: str, generic: str) -> bool:
    """Whether a name says nothing of the generic one: a word of letters without any four of its letters in a row."""
    runs = {generic[at : at + RUN] for at in range(len(generic) - RUN + 1)}
    return name.isascii() and name.isalpha() and len(name) > RUN and not any(run in name for run in runs)


def brands(names: Mapping[str, list[str]], drugs: set[str]) -> list[tuple[str, str]]:
    """Return (name, generic name) of the drugs with the most such names; what names several drugs is left out.

    names : a name to the drugs that it names, all in lower case.
    """
    pairs = [
        (name, generic[0])
        for name, generic in names.items()
        if len(generic) == 1 and generic[0] in drugs and generic[0].isalpha() and is_brand(name, generic[0])
    ]
    most = {generic for generic, _ in Counter(generic for _, generic in sorted(pairs)).most_common(DRUGS)}
    return sorted(pair for pair in pairs if pair[1] in most)


@cache
def installed() -> tuple[tuple[str, str], ...]:
    """The brands of the installed dictionary."""
    with bz2.open(dictionary_path()) as file:
        known = pickle.load(file)  # of the installed wheel, as its own code reads it
    drugs = {name for name, data in known["drug_canonical_to_data"].items() if "drugbank_id" in data}
    return tuple(brands(known["drug_variant_to_canonical"], drugs))


class Brand:
    """The data set as r1core reads it."""

    name = NAME

    @property
    def tasks(self) -> Mapping[str, api.Task]:
        """One task, whose labels are the generic names."""
        labels = tuple(sorted({generic for _, generic in installed()}))
        return MappingProxyType({TASK: api.Task(TASK, labels, "family", "brand name to generic name, 100 drugs")})

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split, in alphabetical order.

        Raises
        ------
        api.UserError : when the package that holds the names is absent.
        """
        for name, generic in installed():
            family = name[:RUN]
            if split_of(family) == split:
                yield api.Example(
                    id=f"brand/{name}",
                    messages=(api.Message("user", TEMPLATE.format(name=name)), api.Message("assistant", generic)),
                    task=TASK,
                    source=NAME,
                    fields={"family": family, "label": generic},
                )

    def input_files(self) -> tuple[Path, ...]:
        """The dictionary, so that `verify` can recheck it."""
        return (dictionary_path(),)

    def fingerprint(self) -> str:
        """SHA-256 of the dictionary's bytes and of what shapes a row."""
        return fingerprint_of(self.input_files(), (NAME, TEMPLATE, DRUGS, RUN))
