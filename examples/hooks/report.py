"""A section of the report: every figure of the evaluation in one table."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api


@api.hookimpl
def report(ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
    """Text, tables and line plots; `private=False` lets the section stand in a redacted report."""
    rows = tuple((str(r["system"]), str(r["metric"]), f"{r['value']:.3f}") for r in run.summary)
    table = api.Table(("system", "metric", "value"), rows)
    return [api.ReportSection("All figures", f"{len(rows)} figures.", (table,), private=False)]
