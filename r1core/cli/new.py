"""`r1core new`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("new")
@click.argument("kind", type=click.Choice(["plugin", "domain"]))
@click.argument("name")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Folder to write (default: plugins/NAME or domains/NAME)."
)
def command(kind: Literal["plugin", "domain"], name: str, directory: Path | None) -> None:
    """Start a plugin or a domain of your own: a folder that installs, works and tests itself."""
    from r1core import scaffold

    made = scaffold.create(kind, name, directory)
    click.echo(f"made {made}")
    click.echo(f"next: pip install -e {made} && pytest {made}")
