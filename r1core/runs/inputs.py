"""Which local files a run reads: named for the manifest, so that `verify` can hash them again later.

A component names its files by an optional method `input_files() -> Iterable[Path]`. Not covered: a component that
reads files without naming them, what a plugin reads over the network, and a model that is loaded from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

MODEL_FILES = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.jinja"),
)
"""Files of a Hugging Face directory that loading reads; notes on where the model came from are left out."""


def named_files(components: Iterable[object]) -> dict[str, Path]:
    """The files that components name, each as `component: file name`; the names hold no directory."""
    found: dict[str, Path] = {}
    for component in components:
        label = str(getattr(component, "name", type(component).__name__))
        for path in files_of(component):
            _add(found, f"{label}: {path.name}", path)
    return found


def files_of(component: object) -> tuple[Path, ...]:
    """The files that one component names, each once; none where it names none."""
    naming = getattr(component, "input_files", None)
    return tuple(dict.fromkeys(map(Path, naming()))) if naming is not None else ()


def model_files(directory: Path) -> dict[str, Path]:
    """The files of a model directory that loading reads, as `model: file name`; none where it is no directory."""
    if not directory.is_dir():
        return {}
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    return {f"model: {name}": directory / name for name in names if any(fnmatch(name, one) for one in MODEL_FILES)}


def here(recorded: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Names of a manifest's inputs that are files, and may be read on this machine."""
    return [name for name, entry in recorded.items() if entry["path"] and os.access(str(entry["path"]), os.R_OK)]


def _add(found: dict[str, Path], name: str, path: Path) -> None:
    number, free = 1, name
    while free in found:
        number += 1
        free = f"{name} ({number})"
    found[free] = path
