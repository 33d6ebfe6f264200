"""`r1core evaluate`."""

from __future__ import annotations

import click

from r1core.cli.common import Terminal, selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("evaluate")
@selects_run
@click.option("--force", is_flag=True, help="Run the stage even if nothing changed.")
def command(selection: Selection, force: bool) -> None:
    """Measure all systems on the test split, after whatever stage before it is not up to date."""
    from r1core.pipeline import run_to

    run_to(open_bench(selection), "evaluate", Terminal(), force=force)
