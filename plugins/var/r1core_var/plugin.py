"""The plugin: a layer and a constraint (see `advice`), scores of generated forecasts, and their report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from r1core import api
from r1core.api import hookimpl
from r1core_var.config import VarConfig

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_MEANINGS = {
    "var/pinball": "mean quantile loss of the value-at-risk that was answered, in its unit; lower is better",
    "var/exceedances": "share of records whose loss was larger than the answer; a right model has about 1 - level",
}


def answered(text: str) -> float | None:
    """Return the last number of an answer (a value-at-risk, positive = loss), or None where there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


class ForecastScore:
    """Scores answers that state a value-at-risk against the loss that followed.

    An answer without a number counts as a forecast of 0: no protection was stated. A record without a realised loss
    is not scored. References are not read.
    """

    higher_is_better = False

    def __init__(self, name: str, config: VarConfig) -> None:
        self.name, self._config = name, config

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[api.Example]) -> float:
        """Return the mean score of the answers.

        Raises
        ------
        api.UserError : where no record has a realised loss, or one that is no finite number.
        """
        level, scores = self._config.level, []
        for text, example in zip(predictions, examples, strict=True):
            if self._config.loss_field not in example.fields:
                continue
            gap = self._loss(example) - (answered(text) or 0.0)
            scores.append(max(level * gap, (level - 1) * gap) if self.name == "var/pinball" else float(gap > 0))
        if not scores:
            raise api.UserError(
                f"{self.name}: none of {len(examples)} records has a field {self._config.loss_field!r}",
                fix="add the realised loss to the data, or set loss_field in [plugins.var]",
            )
        return sum(scores) / len(scores)

    def _loss(self, example: api.Example) -> float:
        value = example.fields[self._config.loss_field]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise api.UserError(
                f"example {example.id}: field {self._config.loss_field!r} is {value!r}, expected a realised loss",
                fix="add the column to the data, or set loss_field in [plugins.var]",
            )
        return float(value)


class VarPlugin(api.Plugin):
    """Entry point of the distribution r1core-var."""

    config = VarConfig

    @hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        """The annotator that reads instruments in prompts, where the layer is asked for."""
        from r1core_var.advice import annotators

        return annotators(ctx)

    @hookimpl
    def extra_layer(self, ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
        """The differentiable risk layer, where it applies."""
        from r1core_var.advice import layers

        return layers(ctx, model)

    @hookimpl
    def decode_constraint(self, ctx: api.Context) -> Sequence[api.DecodeConstraint]:
        """What an answer may say within the record's limits."""
        from r1core_var.advice import constraints

        return constraints(ctx)

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """Names of tasks in `[plugins.var.advice]` that no record can have."""
        from r1core_var.advice_tasks import problems

        advice = ctx.config.advice if isinstance(ctx.config, VarConfig) else None
        return [] if advice is None else list(problems(advice, plan))

    @hookimpl
    def metric(self, ctx: api.Context) -> Sequence[api.Metric]:
        """Pinball loss and share of exceedances of the value-at-risk that answers state."""
        config = ctx.config if isinstance(ctx.config, VarConfig) else VarConfig()
        return [ForecastScore(name, config) for name in _MEANINGS]

    @hookimpl
    def report(self, ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
        """The scores of generated forecasts, where `evaluate` computed any."""
        rows = tuple(
            (
                str(row["task"]),
                str(row["system"]),
                str(row["metric"]),
                f"{row['value']:.5g}",
                _MEANINGS[str(row["metric"])],
            )
            for row in run.summary
            if row.get("metric") in _MEANINGS
        )
        if not rows:
            return []
        table = api.Table(("Task", "System", "Metric", "Value", "Meaning"), rows)
        text = "Value-at-risk stated in answers, against the loss that followed; losses are positive."
        return [api.ReportSection("Value-at-risk", text, (table,), private=False)]
