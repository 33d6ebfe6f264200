"""`r1core new`: what it makes installs, passes its own tests, is listed and takes part in a run."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import RECIPE, Desk, install


@pytest.mark.parametrize(("kind", "listing"), [("plugin", "plugins"), ("domain", "domains")])
def test_what_new_makes_installs_is_listed_and_passes_its_tests(kind: str, listing: str, desk: Desk) -> None:
    made = desk("new", kind, "night_shift")
    folder = desk.folder / f"{kind}s/night_shift"
    assert (folder / "pyproject.toml").is_file()
    assert f"next: pip install -e '{kind}s/night_shift[test]' && python -m pytest {kind}s/night_shift" in made.out
    about = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert any(one.startswith("pytest") for one in about["optional-dependencies"]["test"])
    site = desk.folder / "site"
    install(site, folder)
    desk.path = [site]
    assert "night_shift" in [one["name"] for one in desk(listing, "--json").json()]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=desk.folder, env=desk.env(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout
    if kind == "plugin":
        desk.write("own.toml", RECIPE.replace("plugins = []", 'plugins = ["night_shift"]'))
        terms = ("--set", 'plugins.night_shift.terms=["Since"]')
        trace = desk("prepare", "--recipe", "own.toml", *terms, "--trace", "n1").out
        assert trace == "night_shift/terms: 1 span\n  night_shift/term 'since' -> \"Since\"\n"
    else:
        assert "night_shift" in desk("domains", "show", "night_shift").out
    again = desk("new", kind, "night_shift", code=2)
    assert f"{kind} 'night_shift' is installed already" in again.err
    desk.path = []
    again = desk("new", kind, "night_shift", code=2)
    assert "exists and is not empty" in again.err


def test_new_goes_where_it_is_told(desk: Desk) -> None:
    desk("new", "plugin", "ledger", "--directory", Path("elsewhere/ledger"))
    assert (desk.folder / "elsewhere/ledger/r1core_ledger").is_dir()
