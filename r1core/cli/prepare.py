"""`r1core prepare`."""

from __future__ import annotations

import click

from r1core.cli.common import Terminal, selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("prepare")
@selects_run
@click.option("--force", is_flag=True, help="Run the stage even if nothing changed.")
@click.option("--trace", metavar="ID", help="Only show what each step changes on one record.")
def command(selection: Selection, force: bool, trace: str | None) -> None:
    """Read, check and annotate the records."""
    bench = open_bench(selection)
    if trace is not None:
        from r1core.data.prepare import trace as traced

        for line in traced(bench, trace):
            click.echo(line)
        return
    from r1core.pipeline import run_to

    run_to(bench, "prepare", Terminal(), force=force)
