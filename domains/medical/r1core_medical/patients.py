"""Data set `medical/patients`: made-up patients, each with the same number of diagnoses, for private training.

No person stands behind any of them: terms of ICD-10-CM are dealt out to numbers by a hash. The question, the labels,
`val` and `test` are those of `medical/icd10_specialty`; `train` holds N patients with k records each, whose terms come
from the train split, so that a term stands with several patients. `group` is the patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from r1core import api
from r1core_medical.hashes import fingerprint_of, position_of
from r1core_medical.icd10 import Icd10Specialty, Split

NUMBER, RECORDS = 10_000, 2  # N and k


class Patients:
    """The data set as r1core reads it.

    Parameters
    ----------
    number : N, patients. records : k, of each.
    """

    name = "medical/patients"
    tasks: Mapping[str, api.Task] = Icd10Specialty.tasks

    def __init__(self, number: int = NUMBER, records: int = RECORDS) -> None:
        self._number, self._records, self._terms = number, records, Icd10Specialty()

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split; those of `train` patient by patient.

        Raises
        ------
        api.UserError : when the package that holds the terms is absent or broken.
        """
        examples = [replace(example, source=self.name) for example in self._terms.read(split)]
        if split != "train":
            yield from examples
            return
        for patient in range(self._number):
            for record in range(self._records):
                name = f"patient-{patient:05d}"
                chosen = examples[int(position_of(f"{name}/{record}") * len(examples))]
                yield replace(chosen, id=f"{name}/{record}", group=name)

    def input_files(self) -> tuple[Path, ...]:
        """The tabular list, so that `verify` can recheck it."""
        return self._terms.input_files()

    def fingerprint(self) -> str:
        """SHA-256 of the XML bytes, the name, and N and k."""
        return fingerprint_of(self.input_files(), (self.name, self._terms.fingerprint(), self._number, self._records))
