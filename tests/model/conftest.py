"""What tests of kernels share."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from r1core.testing.files import module_from


@pytest.fixture(scope="session")
def plain_triton() -> ModuleType:
    """What stands in for Triton."""
    return module_from(Path(__file__).parent / "plain_triton.py")
