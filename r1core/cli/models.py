"""`r1core models`."""

from __future__ import annotations

import json

import click

from r1core.cli.table import print_table


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plugin", "only", multiple=True, help="Only models of these plugins.")
def command(as_json: bool, only: tuple[str, ...]) -> None:
    """List the base models that installed plugins provide."""
    from r1core.cli.listing import each_loaded
    from r1core.model.resolve import named_models
    from r1core.plugins import registry
    from r1core.plugins.loading import Plugins

    names = list(only) or [one.name for one in registry.installed(registry.PLUGINS)]
    loaded = [Plugins.load(names, listing=True)] if only else [plugins for _, plugins in each_loaded(names)]
    sources = [made.component for plugins in loaded for made in plugins.call("model_source")]
    rows = [(name, description) for name, (_, description) in sorted(named_models(sources).items())]
    if as_json:
        click.echo(json.dumps([{"name": n, "description": d} for n, d in rows], indent=2))
    elif rows:
        print_table(("name", "description"), rows)
    else:
        click.echo("no installed plugin provides a model; set model.path or model.hub in your recipe")
