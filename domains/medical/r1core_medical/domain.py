"""The domain's entry point: which recipe, which resources, which data sets. Holds no hook implementation."""

from __future__ import annotations

from pathlib import Path

from r1core import api
from r1core_medical.icd10 import Icd10Specialty
from r1core_medical.patients import Patients
from r1core_medical.tasks.brand import Brand
from r1core_medical.tasks.diagnosis import Diagnosis
from r1core_medical.tasks.layperson import Layperson

_HERE = Path(__file__).parent

MEDICAL = api.Domain(
    name="medical",
    summary="ICD-10-CM term to specialty, with linked concepts and cited drug-interaction rules",
    recipe=_HERE / "recipe.toml",
    resources=_HERE,
    sources=(Icd10Specialty(), Icd10Specialty(titles=True), Patients(), Diagnosis(), Layperson(), Brand()),
)
