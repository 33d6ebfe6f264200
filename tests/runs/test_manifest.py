"""A manifest that is not as r1core writes it is one clear error, whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1core.api import R1Error, UserError
from r1core.runs.directory import RunDirectory
from r1core.runs.manifest import Manifest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": []}, "`inputs`"),
        ({"inputs": {"data": {"sha256": "0"}}}, r"`inputs\.data`"),
        ({"artefacts": {"report.html": "0"}}, r"`artefacts\.report\.html`"),
        ({"plugins": {}}, "`plugins`"),
        ({"stages": None}, "`stages`"),
    ],
)
def test_a_part_of_another_shape_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    run = RunDirectory(tmp_path / "run")
    manifest = Manifest(run)
    manifest.start(recipe={}, seed=0, plugins=[])
    content = json.loads(run.manifest.read_text())
    manifest.read()
    run.manifest.write_text(json.dumps(content | change))
    with pytest.raises(R1Error, match=f"{named} is not as r1core writes it"):
        manifest.read()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("{}", "no manifest of"), ("[]", "no manifest of"), ('{"layout": 9}', "layout 9")],
)
def test_what_is_no_manifest_is_told_with_a_way_out(tmp_path: Path, content: str, said: str) -> None:
    run = RunDirectory(tmp_path / "run")
    run.manifest.write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        Manifest(run).read()
    assert refused.value.fix == "bring the file back from a copy, or start a run of its own with --run"
