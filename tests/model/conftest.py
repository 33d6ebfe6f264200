"""What tests of kernels share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def plain_triton() -> ModuleType:
    """What stands in for Triton."""
    path = Path(__file__).parent / "plain_triton.py"
    spec = importlib.util.spec_from_file_location("plain_triton", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
