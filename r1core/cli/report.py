"""`r1core report`."""

from __future__ import annotations

import click

from r1core.cli.common import Terminal, selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("report")
@selects_run
@click.option("--force", is_flag=True, help="Write it even if nothing changed.")
@click.option("--redact", is_flag=True, help="Write report-redacted.html, which holds no text of any record.")
def command(selection: Selection, force: bool, redact: bool) -> None:
    """Write the report and the model card."""
    from r1core.pipeline import run_to

    bench = open_bench(selection)
    run_to(bench, "report", Terminal(), force=force)
    if redact:
        from r1core.runs.report.gather import write_redacted

        click.echo(f"report: {write_redacted(bench)}")
    else:
        click.echo(f"report: {bench.run.report}")
