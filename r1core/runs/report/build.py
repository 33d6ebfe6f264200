"""`build`: a run's report as one HTML file that loads nothing, runs no script and escapes everything.

The page's policy (`Content-Security-Policy`) forbids scripts and any request, so even a flaw in the escaping could
not send a record anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

from r1core.api import Plot, UserError
from r1core.runs.report import svg, views
from r1core.runs.report.data import ReportData
from r1core.runs.report.redact import redacted
from r1core.runs.report.routing import maps

_TEMPLATES = Path(__file__).parent / "templates"


def build(data: ReportData, *, redact: bool = False) -> str:
    """Draw the report.

    Parameters
    ----------
    redact : leave out the text of every record (see `r1core.runs.report.redact`).

    Raises
    ------
    UserError : where jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise UserError("the report needs jinja2, which is not installed", fix="pip install 'r1core[eval]'") from error
    shown = redacted(data) if redact else data
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    demo = shown.rule_demo
    return environment.get_template("report.html").render(
        data=shown,
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        tasks=[(one, Markup(_bars(one))) for one in views.tables(shown.systems)],
        charts=[(one.title, Markup(_lines(one))) for one in views.charts(shown.curves)],
        routing=maps(shown.routed) if shown.routed else [],
        confusion=views.confusion(shown.confusion) if shown.confusion else None,
        examples=[(example, views.pieces(example.prompt, example.spans)) for example in shown.examples],
        facts=_pretty(demo.facts) if demo is not None and demo.facts else "",
        sections=[
            (name, one, [views.wide(table) for table in one.tables], [Markup(_plot(one.title, p)) for p in one.plots])
            for name, one in shown.sections
        ],
        left_out=len(data.sections) - len(shown.sections),
        manifest=_pretty(dict(shown.manifest)),
        short=views.manifest_lines(shown.manifest),
        breaking=views.breaking,
    )


def _bars(table: views.TaskTable) -> str:
    return svg.bar_chart(table.title, table.bars, high=table.high)


def _lines(chart: views.Chart) -> str:
    return svg.line_chart(chart.title, "step", "", chart.series)


def _plot(title: str, plot: Plot) -> str:
    return svg.line_chart(title, plot.x_label, plot.y_label, plot.series)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
