"""A metric for free-text answers: the share of answers that end with a full stop when the reference does."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api


class FullStop:
    """Share of rows, 0 to 1, in which answer and reference agree about a closing full stop."""

    name = "metric/full-stop"
    higher_is_better = True

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[api.Example]) -> float:
        """Called on all rows and on subsets of them (for the standard error), never on none."""
        pairs = zip(predictions, references, strict=True)
        return sum(p.endswith(".") == r.endswith(".") for p, r in pairs) / len(predictions)


@api.hookimpl
def metric(ctx: api.Context) -> Sequence[api.Metric]:
    """The one metric; a recipe asks for it by `evaluate.metrics = ["metric/full-stop"]`."""
    return [FullStop()]
