"""A plugin in one file: the data set `validation_patients/patients`, for choosing hyperparameters without the test.

It is `medical/patients` with other patients of the same kind, `val` in the place of `test`, and rows of `train` in the
place of `val`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from r1core_medical.icd10 import Split
from r1core_medical.patients import NUMBER, RECORDS, Patients

from r1core import api
from r1core.api import hookimpl


class ForDevelopment(Patients):
    """Patients whom the benchmark's own data set does not hold."""

    name = "validation_patients/patients"

    def __init__(self) -> None:
        super().__init__(2 * NUMBER, RECORDS)

    def read(self, split: Split) -> Iterator[api.Example]:
        """See `Patients.read`; the test split is never read."""
        if split == "test":
            return super().read("val")
        others = islice(super().read("train"), NUMBER * RECORDS, None)
        if split == "train":
            return others
        return (replace(one, id=f"val/{one.id}", group=None) for one in islice(others, 200))


class Plugin(api.Plugin):
    """Brings it."""

    @hookimpl
    def dataset_source(self, ctx: api.Context) -> Sequence[api.DatasetSource]:
        """The data set."""
        return [ForDevelopment()]
