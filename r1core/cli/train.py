"""`r1core train`."""

from __future__ import annotations

import click

from r1core.cli.common import Terminal, selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("train")
@selects_run
@click.option("--force", is_flag=True, help="Run the stage even if nothing changed.")
def command(selection: Selection, force: bool) -> None:
    """Train the adapter and the extra layers, after whatever stage before it is not up to date."""
    from r1core.pipeline import run_to

    run_to(open_bench(selection), "train", Terminal(), force=force)
