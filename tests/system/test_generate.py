"""`generate` on runs that are damaged or half trained, and on what a user may type wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .conftest import WARD, Desk, Done

ASK = ("generate", "runs/own", "--prompt", "a cough")
LONG = ("--max-new-tokens", "40")


def middle_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:8] = b""
    content[-64:] = bytes(range(64))
    path.write_bytes(content)


def header_overwritten(path: Path) -> None:
    path.write_bytes(b"\xff" * 16 + path.read_bytes()[16:])


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "r1core_layers.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", [middle_overwritten, header_overwritten, Path.unlink])
def test_damaged_weights_are_never_read(name: str, damage: object, copy: Desk) -> None:
    damage(copy.folder / "runs/own/adapter" / name)  # type: ignore[operator]
    [line, fix] = copy(*ASK, code=2).err.splitlines()
    assert f"runs/own/adapter/{name}: " in line
    assert "recorded" in line or "not there any more" in line
    assert fix.startswith("  fix: bring the file back, or r1core train")


def test_a_file_that_training_did_not_write_is_refused(copy: Desk) -> None:
    (copy.folder / "runs/own/adapter/more.safetensors").write_bytes(b"more")
    [line, _] = copy(*ASK, code=2).err.splitlines()
    assert line.endswith("adapter/more.safetensors: no stage recorded it")


@pytest.mark.slow
def test_an_adapter_of_an_earlier_training_does_not_answer(copy: Desk) -> None:
    manifest = copy.folder / "runs/own/manifest.json"
    child = copy.start("train", *WARD, "--set", "train.learning_rate=0.01")
    while "train" in json.loads(manifest.read_text())["stages"]:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.kill()
    child.communicate(timeout=60)
    told = "train did not finish; adapter is of an earlier training"
    [line, fix] = copy(*ASK, code=2).err.splitlines()
    assert told in line
    assert fix == "  fix: r1core train <the same arguments>, or --base"
    copy(*ASK, "--base")
    found = copy("verify", "runs/own", code=1).out
    assert f"{told} (fix: run the same command again)" in found
    assert "no stage recorded it" not in found


@pytest.mark.parametrize("number", ["0", "-1"])
def test_an_answer_has_at_least_one_token(number: str, adapted: tuple[Desk, Done]) -> None:
    done = adapted[0](*ASK, "--max-new-tokens", number, code=2)
    assert "x>=1" in done.err


def test_a_prompt_beyond_the_context_is_refused(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    done = desk("generate", "runs/own", code=2, given="cough " * 9000)
    [line, fix] = done.err.splitlines()
    assert "more than the model's context, 512" in line
    assert fix == "  fix: shorten the prompt"
    done = desk(*ASK, "--max-new-tokens", "512", code=2)
    assert "or lower --max-new-tokens" in done.err


@pytest.mark.parametrize(
    ("content", "said", "fix"),
    [
        (None, "facts.json: no such file or directory", "give a JSON file"),
        ("{", "facts.json: not JSON: ", "write one JSON object, for instance"),
        ("[1]", "facts.json: expected a JSON object, found list", "write one JSON object, for instance"),
    ],
)
def test_facts_are_read_before_anything_else(
    content: str | None, said: str, fix: str, adapted: tuple[Desk, Done], tmp_path: Path
) -> None:
    file = tmp_path / "facts.json"
    if content is not None:
        file.write_text(content)
    done = adapted[0](*ASK, "--facts", file, code=2)
    [line, told] = done.err.splitlines()
    assert said in line
    assert told.startswith(f"  fix: {fix}")
    assert done.seconds < 3


def test_a_label_that_was_cut_is_no_answer(adapted: tuple[Desk, Done]) -> None:
    done = adapted[0](*ASK, "--choices", "--max-new-tokens", "1", code=2)
    [line, fix] = done.err.splitlines()
    assert "ended before all that it is held to was met (choices: ends before a label is complete)" in line
    assert fix.startswith("  fix: raise --max-new-tokens")


def test_an_answer_is_shaped_and_audited(copy: Desk) -> None:
    schema = copy.folder / "order.json"
    schema.write_text(
        '{"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"], "additionalProperties": false}'
    )
    (copy.folder / "runs/own/audit.jsonl").unlink(missing_ok=True)
    said = json.loads(copy(*ASK, "--json-schema", "order.json", "--beams", "2", "--json", *LONG).out)
    assert json.loads(said["text"])["n"] in (1, 22)
    assert (said["finish"], said["audit"]["recheck"]["found"]) == ("eos", [])
    assert "json-schema" in said["audit"]["recheck"]["by"]
    assert "e" not in copy(*ASK, "--stop", "e", *LONG).out
    assert copy(*ASK, "--regex", "yes doctor", "--require", "Doctor", *LONG).out == "yes doctor\n"
    copy(*ASK, "--require", "ask a doctor", "--max-new-tokens", "3", code=2)
    records = [json.loads(line) for line in (copy.folder / "runs/own/audit.jsonl").read_text().splitlines()]
    assert records[0] == said["audit"]
    assert [r["finish"] for r in records][2:] == ["eos", "unmet"]
    assert records[3]["failure"]
    assert "doctor" not in json.dumps([{**r, "failure": ""} for r in records])
    assert "audit" not in copy("verify", "runs/own").out
    for name, text in (("absent.json", None), ("bad.json", "{")):
        if text is not None:
            (copy.folder / name).write_text(text)
        assert name in copy(*ASK, "--json-schema", name, code=2).err


def test_the_plugin_that_is_left_out_is_named(adapted: tuple[Desk, Done]) -> None:
    done = adapted[0](*ASK, "--no-plugin", "ward", code=None)
    assert done.err.startswith("note: without plugin ward (blocked by --no-plugin)\n")
