"""Third-party distributions from `tests/thirdparty`, really installed by pip into folders of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

THIRD_PARTY = Path(__file__).parent.parent / "thirdparty"


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `site` (acme, broken, future, raising) and `twin` (a second plugin called acme)."""
    folder = tmp_path_factory.mktemp("shelf")
    base = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    sources = {"site": ["acme", "broken", "future", "raising"], "twin": ["twin"]}
    for target, names in sources.items():
        command = [*base, str(folder / target), *(str(THIRD_PARTY / name) for name in names)]
        subprocess.run(command, check=True, timeout=200)
    return folder


@pytest.fixture
def third_party(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The installed distributions on `sys.path`; what is imported from there is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.delenv("R1CORE_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(shelf / "site"))
    yield shelf / "site"
    for name in set(sys.modules) - before:
        if name.endswith("_r1core"):
            del sys.modules[name]
