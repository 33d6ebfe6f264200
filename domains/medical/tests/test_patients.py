"""The made-up patients: how many, whose diagnoses, and that none of them is in the test."""

from __future__ import annotations

from collections import Counter

from r1core_medical.findings import findings
from r1core_medical.icd10 import Icd10Specialty
from r1core_medical.patients import Patients


def test_each_patient_has_as_many_records_diagnoses_and_findings_in_turn() -> None:
    rows, terms = list(Patients(300, 3).read("train")), list(Icd10Specialty().read("train"))
    diagnoses = [row for row in rows if "diagnosis" in row.messages[0].content]
    assert len(diagnoses) == 600
    counts = Counter(row.group for row in rows)
    assert len(counts) == 300
    assert set(counts.values()) == {3}
    assert len({row.id for row in rows}) == 900
    assert {row.fields["term"] for row in diagnoses} <= {term.fields["term"] for term in terms}
    assert len({row.fields["term"] for row in rows}) > 800
    assert list(Patients(300, 3).read("train")) == rows


def test_the_test_is_that_of_the_terms() -> None:
    made, terms = list(Patients().read("test")), list(Icd10Specialty().read("test"))
    assert [row.messages for row in made] == [term.messages for term in terms]
    assert all(row.group is None for row in made)
    assert Patients().fingerprint() != Patients(300, 3).fingerprint()


def test_findings_have_the_label_of_their_branch_as_the_ontology_draws_it() -> None:
    labels = {one.text: one.label for one in findings()}
    assert len(labels) > 10_000
    # As any physician would say.
    assert labels["Bradycardia"] == "heart"
    assert labels["Nystagmus"] in ("eye", "brain")
    assert labels["Psychosis"] == "mental"
    assert labels["Ataxia"] == "brain"
    assert labels["Hematuria"] == "urinary"
    assert "Retinoblastoma" not in labels  # of the eye, and a neoplasm


def test_no_finding_is_a_diagnosis_of_the_test() -> None:
    tested = {str(row.fields["term"]).casefold() for part in ("val", "test") for row in Patients().read(part)}  # type: ignore[arg-type]
    assert not tested & {one.text.casefold() for one in findings()}
