from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

import pytest

from r1core import scaffold
from r1core.api import UserError

ROOT = Path(__file__).parents[2]


def run(*command: str, path: Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    environment.pop("R1CORE_PLUGINS", None)
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=200, env=environment, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plugin", "domain"])
def test_what_is_created_installs_and_passes_its_own_tests(kind: Literal["plugin", "domain"], tmp_path: Path) -> None:
    folder = scaffold.create(kind, "bedside_notes", tmp_path / "new")
    assert "{{" not in "".join(file.read_text() for file in folder.rglob("*") if file.is_file())
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    run(*pip, str(folder), path=tmp_path, cwd=tmp_path)
    kit = [] if metadata.entry_points(group="pytest11", name="r1core") else ["-p", "r1core.testing.pytest_plugin"]
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *kit, "tests", path=site, cwd=folder)
    assert " passed" in told
    if kind == "plugin":
        spans = run("-c", USE, path=site, cwd=tmp_path)
        assert json.loads(spans) == [["bedside_notes/term", "fever"]]


USE = """
import json
from r1core import api
from r1core.compose import Chain
from r1core.plugins.loading import Plugins

def stream(*names, **configs):
    plugins = Plugins.load(names, configs=configs)
    record = api.Example("1", (api.Message("user", "Fever since Monday"), api.Message("assistant", "flu")), "t")
    return list(Chain([c for _, c in plugins.call("preprocess")]).stream([record]))

assert stream()[0].spans == ()
changed = stream("bedside_notes", bedside_notes={"terms": ["fever"]})
print(json.dumps([[span.kind, span.value] for span in changed[0].spans]))
"""


@pytest.mark.parametrize(("name", "fix"), [("My Plugin", "my_plugin"), ("9lives", "lives"), ("a-b", "a_b")])
def test_a_bad_name_gets_a_good_one(name: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower-case") as caught:
        scaffold.create("plugin", name, tmp_path / "x")
    assert caught.value.fix == f"r1core new plugin {fix}"
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        scaffold.create("domain", "x", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]
