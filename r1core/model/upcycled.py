"""The base model `r1`: the dense model that plugins provide, upcycled once and kept in the cache. Torch-free."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from r1core.api import ModelSource, UserError, build_once, cache_root
from r1core.model.upcycling import Upcycling

NAME = "r1"
"""What `model.base` calls it."""
VERSION = 2
"""Counts up when the same dense model becomes another R1."""


class R1Source:
    """Provides `r1`, made of one dense model.

    Parameters
    ----------
    sources : of dense models, as plugins provide them; the first that is named is taken.
    """

    def __init__(self, sources: Sequence[ModelSource]) -> None:
        self._dense = [(source, name) for source in sources for name in source.names()]

    def names(self) -> Mapping[str, str]:
        """`r1`, where there is a dense model."""
        return {NAME: f"R1, mixture of experts upcycled from {self._dense[0][1]}"} if self._dense else {}

    def fingerprint(self, name: str) -> str:
        """Of the dense model and of how it is upcycled."""
        source, dense = self._one(name)
        said = f"{source.fingerprint(dense)} {VERSION} {sorted(asdict(Upcycling()).items())}"
        return hashlib.sha256(said.encode()).hexdigest()

    def materialise(self, name: str) -> Path:
        """The directory, upcycled at the first call.

        Raises
        ------
        UserError : where there is no dense model, or the cache cannot be written.
        """
        source, dense = self._one(name)
        target = cache_root() / "models" / f"{NAME}-{self.fingerprint(name)[:12]}"
        try:
            return build_once(target, partial(_build, source.materialise(dense)), _intact)
        except OSError as error:
            raise UserError(
                f"cannot keep the upcycled model in {target.parent}: {error.strerror or error}",
                fix="free 2 GB there, or set R1CORE_CACHE to a folder that can be written",
            ) from error

    def _one(self, name: str) -> tuple[ModelSource, str]:
        if name != NAME or not self._dense:
            raise UserError(f"no model {name!r}", fix="add a plugin that provides a dense model to run.plugins")
        return self._dense[0]


def _build(dense: Path, folder: Path) -> None:
    from r1core.model.r1.upcycle import upcycle

    upcycle(dense, folder, Upcycling())


def _intact(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
