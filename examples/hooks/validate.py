"""Problems that only this plugin can see: here, a run that would train for a single step."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api


@api.hookimpl
def validate(ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
    """Look at the resolved recipe; `plan.origins` says which file and line set a key."""
    if plan.recipe["train"]["steps"] != 1:
        return []
    where = plan.origins.get("train.steps", "train.steps")
    return [api.Problem(where, "one training step", "more than one", "raise train.steps", severity="warning")]
