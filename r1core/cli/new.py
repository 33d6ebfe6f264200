"""`r1core new`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import click

from r1core.errors import UserError


@click.command("new")
@click.argument("kind", type=click.Choice(["plugin", "domain"]))
@click.argument("name")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Folder to write (default: plugins/NAME or domains/NAME)."
)
def command(kind: Literal["plugin", "domain"], name: str, directory: Path | None) -> None:
    """Start a plugin or a domain of your own: a folder that installs, works and tests itself."""
    from r1core import scaffold
    from r1core.plugins import registry

    if taken := registry.named(registry.PLUGINS if kind == "plugin" else registry.DOMAINS, name):
        raise UserError(f"{kind} {name!r} is installed already: {taken[0]}", fix="choose another name")
    made = scaffold.create(kind, name, directory)
    click.echo(f"made {made}")
    extra, folder = shlex.quote(f"{made}[test]"), shlex.quote(str(made))
    click.echo(f"next: pip install -e {extra} && python -m pytest {folder}")
