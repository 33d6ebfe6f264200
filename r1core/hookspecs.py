"""The typed hook specifications: called once, when a run is built; each returns components that the core composes.

A plugin may take any subset of a hook's arguments. Composition and conflict rules stand in `r1core.compose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from r1core import api

hookspec = pluggy.HookspecMarker("r1core")


@hookspec
def preprocess(ctx: api.Context) -> Sequence[api.Annotator | api.DatasetTransform]:
    """Annotators (prepare, generate and serve alike) and dataset transforms (prepare only)."""


@hookspec
def reward(ctx: api.Context) -> Sequence[api.Reward]:
    """Rewards, summed by the recipe's weights over those that answer."""


@hookspec
def decode_constraint(ctx: api.Context) -> Sequence[api.DecodeConstraint]:
    """Constraints on the generated tokens, intersected."""


@hookspec
def extra_layer(ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
    """Extra layers; `model` is the base model's Hugging Face config, so that sites can be chosen."""


@hookspec
def privacy(ctx: api.Context) -> api.PrivacyPolicy | None:
    """The one privacy policy of a run."""


@hookspec
def difficulty(ctx: api.Context) -> Sequence[api.Difficulty]:
    """How difficult a training record is; `curriculum.difficulty` names the one that counts."""


@hookspec
def model_source(ctx: api.Context) -> Sequence[api.ModelSource]:
    """Named base models."""


@hookspec
def dataset_source(ctx: api.Context) -> Sequence[api.DatasetSource]:
    """Named data sets."""


@hookspec
def metric(ctx: api.Context) -> Sequence[api.Metric]:
    """Metrics that evaluation adds for free-text tasks."""


@hookspec
def quality_gate(ctx: api.Context) -> Sequence[api.QualityGate]:
    """Reasons to quarantine a record."""


@hookspec
def augment(ctx: api.Context) -> Sequence[api.Augment]:
    """Further training examples derived from one."""


@hookspec
def callback(ctx: api.Context) -> Sequence[api.Callback]:
    """Observers, told in name order."""


@hookspec
def validate(ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
    """Problems that only this plugin can see."""


@hookspec
def report(ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
    """Sections for the report, grouped by plugin."""
