"""Each folder is a distribution: it builds a wheel that holds its data files, and plain pip installs them all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

WHEELS = {
    ".": (
        "r1core/runs/report/templates/report.html",
        "r1core/runs/report/templates/report.css",
        "r1core/scaffold/templates/plugin/package/plugin.py.tmpl",
        "r1core/testing/pytest_plugin.py",
    ),
    "plugins/umls": ("r1core_umls/plugin.py",),
    "plugins/clinical_rules": ("r1core_clinical_rules/plugin.py",),
    "plugins/dp": ("r1core_dp/plugin.py",),
    "plugins/flower": ("r1core_flower/plugin.py",),
    "plugins/smollm2": ("r1core_smollm2/source.py", "r1core_smollm2/apache-2.0.txt"),
    "domains/medical": (
        "r1core_medical/recipe.toml",
        "r1core_medical/rules/interactions.yaml",
        "r1core_medical/demo/patient.json",
        "r1core_medical/data/card.md",
    ),
}
TOP_ONLY = {"runs", "wheelhouse", "dist", "site"}
"""What other commands leave at the root of a checkout."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in them."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        top = TOP_ONLY if Path(folder) == ROOT else set()
        return {name for name in names if name.startswith(".") or name == "__pycache__" or name in top}

    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "r1core", ignore=ignored))


@pytest.mark.parametrize("folder", WHEELS)
def test_a_wheel_holds_its_data_files_and_no_tests(folder: str, checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("build", reason="pip install build")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(checkout / folder),
    ]
    done = subprocess.run(build, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in WHEELS[folder]:
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    readme = (checkout / folder / "README.md").read_text()
    [metadata] = [name for name in names if name.endswith("/METADATA")]
    assert readme.splitlines()[0] in zipfile.ZipFile(wheel).read(metadata).decode()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_plain_pip_in_a_fresh_environment(checkout: Path, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "R1CORE", "VIRTUAL_ENV"))}
        done = subprocess.run(
            [*map(str, command)], cwd=checkout, env=env, capture_output=True, text=True, timeout=1000
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    scripts = tmp_path / "venv/bin"
    run(
        *(scripts / "python", "-m", "pip", "install", "-q", "-c", "constraints.txt", ".[train]"),
        *("./plugins/umls", "./plugins/clinical_rules", "./plugins/smollm2", "./domains/medical"),
    )
    assert "medical" in run(scripts / "r1core", "domains")
    assert {"clinical_rules", "smollm2", "umls"} <= set(run(scripts / "r1core", "plugins").split())
    run(scripts / "python", "-m", "pip", "check")
