"""The plugin object: one hook, one model source. Imports no heavy library."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api
from r1core_smollm2.source import SmolLM2Source


class SmolLM2Plugin(api.Plugin):
    """Provides the base model `smollm2-135m-instruct`."""

    @api.hookimpl
    def model_source(self, ctx: api.Context) -> Sequence[api.ModelSource]:
        """The one source; nothing is read or converted before `materialise` is called."""
        return [SmolLM2Source()]
