"""A Python file that lies on no path, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def module_from(file: str | Path, name: str = "") -> ModuleType:
    """Import a file under a name, its own where none is given; dataclasses look their module up by it."""
    spec = importlib.util.spec_from_file_location(name or Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
