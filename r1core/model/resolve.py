"""Which model a recipe means, before any weight is read: a source's name, a directory or a hub id. Torch-free.

A directory is used offline; only `model.hub` may reach the network, and only where the cache lacks the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from r1core.api import ModelSource, UserError
from r1core.model.upcycled import R1Source
from r1core.recipe.schema import Model


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A resolved base model: how it is called, where it comes from, and a hash that changes with its bytes."""

    name: str
    fingerprint: str
    source: ModelSource | None
    location: str
    revision: str | None = None

    def directory(self) -> str:
        """The directory (materialised by its source where needed) or hub id to load from."""
        return str(self.source.materialise(self.name)) if self.source else self.location


def named_models(sources: Sequence[ModelSource]) -> dict[str, tuple[ModelSource, str]]:
    """Every model that plugins provide, and the R1 that comes of one: name to `(source, description)`.

    Raises
    ------
    UserError : when two sources give the same name.
    """
    found: dict[str, tuple[ModelSource, str]] = {}
    for source in (*sources, R1Source(sources)):
        for name, description in source.names().items():
            if name in found:
                raise UserError(f"model {name!r} is provided twice", fix="block one plugin with --no-plugin")
            found[name] = (source, description)
    return found


def resolve(model: Model, sources: Sequence[ModelSource]) -> BaseModel:
    """Find the base model of a recipe.

    Raises
    ------
    UserError : for an unknown name, a missing directory, a directory without `config.json`.
    """
    if model.base is not None:
        known = named_models(sources)
        if model.base not in known:
            close = get_close_matches(model.base, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
            raise UserError(
                f"model.base: no model source provides {model.base!r}; {hint}",
                fix="add the plugin that provides it to run.plugins, or set model.path to a model directory",
            )
        source = known[model.base][0]
        return BaseModel(model.base, source.fingerprint(model.base), source, "")
    if model.path is not None:
        path = model.path.expanduser()
        if not (path / "config.json").is_file():
            raise UserError(f"model.path: {path} holds no config.json", fix="give a Hugging Face model directory")
        return BaseModel(path.name, _directory_hash(path), None, str(path))
    assert model.hub is not None
    identity = hashlib.sha256(f"{model.hub}@{model.revision or 'main'}".encode()).hexdigest()
    return BaseModel(model.hub, identity, None, model.hub, model.revision)


def _directory_hash(path: Path) -> str:
    """sha256 over names, sizes and modification times of weights and the bytes of the small files.

    Hashing gigabytes before each command would cost minutes; the manifest records the full hashes once.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        stat = file.stat()
        digest.update(f"{file.name}:{stat.st_size}".encode())
        if stat.st_size < 10_000_000:
            digest.update(file.read_bytes())
        else:
            digest.update(str(stat.st_mtime_ns).encode())
    return digest.hexdigest()


def context_length(directory: str) -> int | None:
    """Longest sequence that the model's configuration states, or None where it states none or is not local."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        return None
    config: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
    value = config.get("max_position_embeddings", config.get("n_positions"))
    return value if isinstance(value, int) else None


class StoredConfig:
    """A model directory's configuration as `extra_layer` hooks are given it, without importing transformers.

    What `config.json` leaves to its class (defaults, other names of a key) is asked of transformers, once.
    """

    def __init__(self, directory: Path) -> None:
        self.__dict__ |= json.loads((directory / "config.json").read_text(encoding="utf-8"))
        self._directory = directory

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole, name)

    @cached_property
    def _whole(self) -> object:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self._directory, local_files_only=True)
