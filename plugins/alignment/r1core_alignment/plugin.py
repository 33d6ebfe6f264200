"""The plugin: the annotator `alignment/known`, and what `r1core check` has to say of its files. Imports no pandas."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api
from r1core.api import hookimpl
from r1core_alignment.annotator import KnownFacts
from r1core_alignment.config import AlignmentConfig


class AlignmentPlugin(api.Plugin):
    """What was known of a company, strictly before a record's day."""

    config = AlignmentConfig

    @hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        """The annotator `alignment/known`."""
        return [KnownFacts(_config(ctx))]

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """A file that cannot be read, a concept that no file has."""
        try:
            facts = KnownFacts(_config(ctx)).facts
        except api.UserError as error:
            return [api.Problem("plugins.alignment", str(error), "facts that can be aligned", error.fix)]
        left = len(facts.left_out)
        if not left:
            return []
        found = f"{left} facts are left out, the first because {facts.left_out['reason'].iloc[0]}"
        return [api.Problem("plugins.alignment", found, "facts that can be placed", "see `left_out`", "warning")]


def _config(ctx: api.Context) -> AlignmentConfig:
    if not isinstance(ctx.config, AlignmentConfig):
        raise api.UserError(
            "alignment has no files of facts",
            fix='add to the recipe: [plugins.alignment] files = ["facts.json"], concepts = ["Assets"]',
        )
    return ctx.config
