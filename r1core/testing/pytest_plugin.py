"""The conformance kit as pytest fixtures, found through the entry point `pytest11`. Imports nothing of r1core at load.

def test_conforms(r1core_check):
    r1core_check("acme", config={"terms": ["aspirin"]})
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def r1core_check(tmp_path: Path) -> Callable[..., None]:
    """`check(plugin, name=, config=, examples=)`: fails the test with one line for each breach of the contract."""
    from r1core.testing.conformance import check_plugin

    def check(plugin: str | object, **options: Any) -> None:
        failures = check_plugin(plugin, **{"run_dir": tmp_path, **options})
        if failures:
            pytest.fail("\n".join(failures), pytrace=False)

    return check


@pytest.fixture
def r1core_check_domain() -> Callable[[str], None]:
    """`check(domain)`: fails the test with one line for each breach of the contract."""
    from r1core.testing.conformance import check_domain

    def check(domain: str) -> None:
        if failures := check_domain(domain):
            pytest.fail("\n".join(failures), pytrace=False)

    return check


@pytest.fixture
def r1core_imports() -> Callable[..., frozenset[str]]:
    """`imports(*modules)`: the top-level packages that a fresh interpreter holds once it has imported these."""

    def imports(*modules: str) -> frozenset[str]:
        code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return frozenset(done.stdout.split())

    return imports


@pytest.fixture(scope="session")
def r1core_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory with the tiny model and its tokenizer, built once a session; do not write it."""
    from r1core.testing.tiny import tiny_model_dir

    return tiny_model_dir(tmp_path_factory.mktemp("tiny"))
