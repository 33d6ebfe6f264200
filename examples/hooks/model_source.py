"""Provides a base model under a name: a two-block model of a few thousand weights, built in code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from r1core import api

NAME = "tiny-random"


class TinySource:
    """One model that knows nothing: enough to try a recipe in seconds."""

    def names(self) -> Mapping[str, str]:
        """Name to one line that states size and licence."""
        return {NAME: "two blocks, random weights, for trying things; no licence needed"}

    def materialise(self, name: str) -> Path:
        """The Hugging Face directory; written aside and renamed, so a killed command leaves nothing half made."""
        from r1core.testing.tiny import tiny_model_dir

        target = Path(tempfile.gettempdir()) / f"r1core-{NAME}"
        if not target.is_dir():
            aside = Path(tempfile.mkdtemp(dir=target.parent))
            tiny_model_dir(aside).rename(target)
        return target

    def fingerprint(self, name: str) -> str:
        """Cheap: raise the number when the weights change."""
        return "seed 0"


@api.hookimpl
def model_source(ctx: api.Context) -> Sequence[api.ModelSource]:
    """The one source."""
    return [TinySource()]
