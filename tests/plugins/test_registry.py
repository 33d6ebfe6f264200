from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1core.plugins import registry


def test_metadata_is_read_and_nothing_imported(third_party: Path) -> None:
    found = {one.name: one for one in registry.installed(registry.PLUGINS)}
    acme = found["acme"]
    assert (acme.distribution, acme.version) == ("acme-r1core", "1.2.0")
    assert acme.summary == "Marks trial drugs and forbids one of them."
    assert acme.requires_r1core == "<0.2,>=0.1"
    assert {"broken", "future", "raising"} <= found.keys(), "a broken plugin is listed like any other"
    assert not [name for name in sys.modules if name.endswith("_r1core")]


def test_two_of_one_name_are_both_listed(third_party: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shelf / "twin"))
    owners = [one.distribution for one in registry.named(registry.PLUGINS, "acme")]
    assert owners == ["acme-r1core", "twin-r1core"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("r1core>=0.1,<0.2", ("r1core", ">=0.1,<0.2", "")),
        ("R1Core (>=0.1)", ("r1core", ">=0.1", "")),
        ("r1core[train]>=0.1; extra == 'train'", ("r1core", ">=0.1", "train")),
        ("r1core", ("r1core", "", "")),
        ("ruamel.yaml>=0.18 ; python_version < '4'", ("ruamel-yaml", ">=0.18", "")),
    ],
)
def test_requirement_lines(line: str, parts: tuple[str, str, str]) -> None:
    assert registry.requirement(line) == parts


def test_listing_needs_neither_torch_nor_numpy_nor_pydantic(third_party: Path) -> None:
    code = (
        "import sys; from r1core.plugins import registry;"
        "names = [one.name for one in registry.installed(registry.PLUGINS)];"
        "assert 'acme' in names, names;"
        "bad = {'torch', 'numpy', 'pydantic', 'acme_r1core', 'broken_r1core'} & set(sys.modules); assert not bad, bad"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
