"""The made-up patients: how many, whose diagnoses, and that none of them is in the test."""

from __future__ import annotations

from collections import Counter

from r1core_medical.icd10 import Icd10Specialty
from r1core_medical.patients import Patients


def test_each_patient_has_as_many_records_of_the_train_terms() -> None:
    rows, terms = list(Patients(300, 3).read("train")), list(Icd10Specialty().read("train"))
    counts = Counter(row.group for row in rows)
    assert len(counts) == 300
    assert set(counts.values()) == {3}
    assert len({row.id for row in rows}) == 900
    assert {row.fields["term"] for row in rows} <= {term.fields["term"] for term in terms}
    assert len({row.fields["term"] for row in rows}) > 700
    assert list(Patients(300, 3).read("train")) == rows


def test_the_test_is_that_of_the_terms() -> None:
    made, terms = list(Patients().read("test")), list(Icd10Specialty().read("test"))
    assert [row.messages for row in made] == [term.messages for term in terms]
    assert all(row.group is None for row in made)
    assert Patients().fingerprint() != Patients(300, 3).fingerprint()
