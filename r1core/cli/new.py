"""`r1core new`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new")
@click.argument("kind", type=click.Choice(["plugin", "domain"]))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where to make its folder.")
def command(kind: str, name: str, directory: Path) -> None:
    """Start a plugin or a domain of your own: a folder that installs, works and tests itself."""
    from r1core import scaffold

    made = scaffold.create(kind, name, directory)
    click.echo(f"made {made}")
    click.echo(f"next: pip install -e {made} && pytest {made}")
