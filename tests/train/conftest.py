"""The helper beside these tests, importable as a module and runnable as a script."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from r1core.testing.files import module_from


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return module_from(Path(__file__).parent / "tiny_training.py")
