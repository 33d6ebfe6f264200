"""Data set `medical/patients`: made-up patients, each with the same number of records, for private training.

No person stands behind any of them: diagnoses (terms of ICD-10-CM) and findings (terms of HPO) are dealt out to numbers
by a hash. The labels, `val` and `test` are those of `medical/icd10_specialty`; `train` holds N patients with k records
each, diagnoses of the train split and findings in turn, so that a term stands with several patients. `group` is the
patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from r1core_umls.hpo import installed_obo

from r1core import api
from r1core_medical import findings
from r1core_medical.hashes import fingerprint_of, position_of
from r1core_medical.icd10 import TASK, Icd10Specialty, Split

NUMBER, RECORDS = 10_000, 4  # N and k


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
        api.UserError : when a package that holds terms is absent or broken.
        """
        diagnoses = [replace(example, source=self.name) for example in self._terms.read(split)]
        if split != "train":
            yield from diagnoses
            return
        kinds: Sequence[Sequence[api.Example]] = (diagnoses, [self._example(one) for one in findings.findings()])
        for patient in range(self._number):
            name = f"patient-{patient:05d}"
            for record in range(self._records):
                some = kinds[record % 2]
                chosen = some[int(position_of(f"{name}/{record}") * len(some))]
                yield replace(chosen, id=f"{name}/{record}", group=name)

    def _example(self, finding: findings.Finding) -> api.Example:
        return api.Example(
            id=finding.code,
            messages=(
                api.Message("user", findings.TEMPLATE.format(term=finding.text)),
                api.Message("assistant", finding.label),
            ),
            task=TASK,
            source=self.name,
            fields={"term": finding.text, "code": finding.code, "label": finding.label},
        )

    def input_files(self) -> tuple[Path, ...]:
        """The tabular list and the ontology, so that `verify` can recheck them."""
        return (*self._terms.input_files(), installed_obo())

    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes, the name, how terms become rows, and N and k."""
        shape = (self.name, self._terms.fingerprint(), findings.TEMPLATE, sorted(findings.BRANCHES.items()))
        return fingerprint_of(self.input_files(), (*shape, self._number, self._records))
