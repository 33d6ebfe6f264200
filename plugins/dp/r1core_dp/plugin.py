"""The plugin: the policy, what `r1core check` has to say of it, and its section of the report. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from r1core import api
from r1core.api import hookimpl
from r1core_dp.config import DpConfig
from r1core_dp.ledger import CARD


class DpPlugin(api.Plugin):
    """Differentially private training."""

    config = DpConfig

    @hookimpl
    def privacy(self, ctx: api.Context) -> api.PrivacyPolicy:
        """The policy `dp/units`."""
        from r1core_dp.policy import UnitPolicy

        assert isinstance(ctx.config, DpConfig)
        return UnitPolicy(ctx.config)

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """Libraries of the extra `train` that are not installed."""
        from importlib.util import find_spec

        found = []
        for library in ("torch", "opacus"):
            if find_spec(library) is None:
                found.append(api.Problem("plugins.dp", f"no {library}", library, "pip install 'r1core-dp[train]'"))
        return found

    @hookimpl
    def report(self, ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
        """The privacy card and the curve of epsilon."""
        path = run.directory / CARD
        if not path.is_file():
            return []
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        apart = ("curve", "not_covered", "audit")
        rows = tuple((key.replace("_", " "), _told(card[key])) for key in card if key not in apart)
        audit = card["audit"] or {"flags": "not made: r1core dp audit RUN"}
        audited = tuple((key.replace("_", " "), _told(audit[key])) for key in audit)
        uncovered = tuple((line,) for line in card["not_covered"])
        points = card["curve"]
        plot = api.Plot(
            "steps counted",
            "epsilon",
            (api.Series("PRV", tuple(p["steps"] for p in points), tuple(p["epsilon"] for p in points)),),
        )
        return [
            api.ReportSection(
                "Privacy",
                card["guarantee"],
                (
                    api.Table(("", "value"), rows),
                    api.Table(("audit", "found"), audited),
                    api.Table(("epsilon does not cover",), uncovered),
                ),
                (plot,),
                private=False,
            )
        ]


def _told(value: object) -> str:
    """A value of the card in words."""
    if isinstance(value, list) and not all(isinstance(one, dict) for one in value):
        return "; ".join(map(str, value))
    if isinstance(value, list) and value:
        return "; ".join(f"{one['noise_multiplier']:.4g} for {one['steps']} steps" for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return f"{value:.6g}" if isinstance(value, float) else "none" if value in (None, []) else str(value)
