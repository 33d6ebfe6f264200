"""The plugin: numbers as spans, layers that choose programs, constraints on numbers in answers, metrics of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1core import api
from r1core.api import hookimpl
from r1core_numeric.config import POINTER, NumericConfig

if TYPE_CHECKING:
    from r1core_numeric.constraint import Memory


def _config(ctx: api.Context) -> NumericConfig:
    return ctx.config if isinstance(ctx.config, NumericConfig) else NumericConfig.model_validate({})


class NumericPlugin(api.Plugin):
    """Entry point of the distribution r1core-numeric."""

    config = NumericConfig

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}

    def _memory(self, config: NumericConfig) -> Memory:
        """The one memory of a configuration, which constraints fill and metrics ask."""
        from r1core_numeric.constraint import Memory

        return self._memories.setdefault(config.model_dump_json(), Memory(config))

    @hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        """Return what marks numbers in prompts; by the recipe also what shows tables, and what teaches programs."""
        from r1core_numeric.annotator import NumberAnnotator
        from r1core_numeric.learned import ChoiceAnnotator
        from r1core_numeric.prompt import TableAnnotator

        config = _config(ctx)
        shown = [TableAnnotator(config)] if config.table == "prompt" else []
        learnt = [ChoiceAnnotator(config)] if config.layer == POINTER else []
        return [*shown, NumberAnnotator(config), *learnt]

    @hookimpl
    def extra_layer(self, ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
        """Return value features and the heads that choose a program, where `layer = "numeric/pointer"`."""
        from r1core_numeric.layer import layers

        return layers(_config(ctx))

    @hookimpl
    def decode_constraint(self, ctx: api.Context) -> Sequence[api.DecodeConstraint]:
        """Return what keeps numbers without provenance out, and what asks for the results of programs."""
        from r1core_numeric.constraint import PROVENANCE, RESULTS, NumericConstraint

        config = _config(ctx)
        memory = self._memory(config)
        return [NumericConstraint(PROVENANCE, config, memory), NumericConstraint(RESULTS, config, memory)]

    @hookimpl
    def metric(self, ctx: api.Context) -> Sequence[api.Metric]:
        """Return exactness and unsupported numbers."""
        from r1core_numeric.metrics import Exact, Unsupported

        config = _config(ctx)
        return [Exact(config), Unsupported(config, self._memory(config))]
