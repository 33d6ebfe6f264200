"""`r1core merge`."""

from __future__ import annotations

from pathlib import Path

import click

from r1core.cli.common import selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("merge")
@selects_run
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write (default: the run's, with -merged).")
@click.option(
    "--precision",
    type=click.Choice(["base", "fp32", "bf16"]),
    default="base",
    show_default=True,
    help="How weights are stored; base = as the base model's are.",
)
def command(selection: Selection, out: Path | None, precision: str) -> None:
    """Write a run's base model and adapter as one plain Hugging Face model. TARGET is a run directory or a domain."""
    from r1core.runs.verify import trained_adapter

    bench = open_bench(selection)
    adapter = trained_adapter(bench.directory)
    target = out or bench.directory.with_name(f"{bench.directory.name}-merged")
    from r1core.model.merge import merge

    dtype = merge(bench.base, adapter, bench.tokenizer, target, precision=precision)
    click.echo(f"merged model ({dtype}): {target}")
