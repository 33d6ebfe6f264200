"""Writes a Hugging Face model directory from a GGUF file: weights, configuration, tokenizer, licence, provenance."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from r1core_smollm2.header import damaged, read_header
from r1core_smollm2.layout import model_config, special_ids, targets
from r1core_smollm2.tokenizer import tokenizer_config, tokenizer_json
from r1core_smollm2.weights import write_safetensors
from r1core_smollm2.wheel import Weights

CONVERTER = 1  # raise it when the files written for the same GGUF change
LICENCE_TEXT = Path(__file__).with_name("apache-2.0.txt")
LIBRARIES = ("gguf", "numpy", "safetensors", "tokenizers")
SOURCE_FILE = "source.json"
READABLE = 0o644  # safetensors makes files that only their owner can read; a shared cache needs more

NOTICE = """\
{name}
by {organization}, licensed under the Apache License 2.0 (see LICENSE); the file states `general.license: {license}`.

Taken from {file} ({origin}), sha256 {sha256}.
Changed by r1core-smollm2: the quantised tensors are dequantised to bfloat16, the rows of the query and key
projections are put back into Hugging Face's rotary order, and the tokenizer and configuration are written in
Hugging Face's file formats. No weight is trained.
"""


def convert(weights: Weights, sha256: str, directory: Path) -> None:
    """Fill an empty directory; `source.json`, written last, lists every other file with its size.

    Raises
    ------
    UserError : where the GGUF file is damaged or holds another kind of model.
    """
    header = read_header(weights.path)
    metadata = header.metadata
    try:
        config = model_config(metadata, header.tensors.keys())
        wanted = targets(config)
        texts = {
            "config.json": _dump(config),
            "generation_config.json": _dump(special_ids(metadata)),
            "tokenizer.json": tokenizer_json(metadata),
            "tokenizer_config.json": _dump(tokenizer_config(metadata)),
            "NOTICE": _notice(weights, sha256, metadata),
        }
    except KeyError as error:
        raise damaged(weights.path, f"the GGUF metadata lacks {error}") from error
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise damaged(weights.path, f"unusable GGUF metadata: {error}") from error
    write_safetensors(directory / "model.safetensors", weights.path, header, wanted)
    (directory / "model.safetensors").chmod(READABLE)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    shutil.copyfile(LICENCE_TEXT, directory / "LICENSE")
    (directory / SOURCE_FILE).write_text(_dump(_provenance(weights, sha256, directory)), encoding="utf-8")


def intact(directory: Path) -> bool:
    """Whether `source.json` is whole and every file that it lists has the size it had. Reads no weight."""
    try:
        files = json.loads((directory / SOURCE_FILE).read_text(encoding="utf-8"))["files"]
        return all((directory / name).stat().st_size == size for name, size in files.items())
    except (FileNotFoundError, KeyError, ValueError):
        return False


def _notice(weights: Weights, sha256: str, metadata: dict[str, Any]) -> str:
    return NOTICE.format(
        name=metadata.get("general.name", weights.path.stem),
        organization=metadata.get("general.organization", "an author that the file does not name"),
        license=metadata.get("general.license", "not stated"),
        file=weights.path.name,
        origin=weights.origin or "a local file",
        sha256=sha256,
    )


def _provenance(weights: Weights, sha256: str, directory: Path) -> dict[str, Any]:
    return {
        "file": weights.path.name,
        "origin": weights.origin,
        "sha256": sha256,
        "license": "Apache-2.0",
        "converter": CONVERTER,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "files": {path.name: path.stat().st_size for path in sorted(directory.iterdir())},
    }


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
