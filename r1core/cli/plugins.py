"""`r1core plugins`."""

from __future__ import annotations

import json

import click

from r1core.cli.table import print_table


@click.command("plugins")
@click.argument("words", nargs=-1, metavar="[show NAME]")
@click.option("--hook", help="Only plugins that implement this hook (imports them to see).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(words: tuple[str, ...], hook: str | None, as_json: bool) -> None:
    """List installed plugins without importing any, or `show NAME`."""
    from r1core.errors import UserError
    from r1core.plugins import registry

    if words and (len(words) != 2 or words[0] != "show"):
        raise UserError(f"plugins {' '.join(words)}: not understood", fix="r1core plugins, or r1core plugins show NAME")
    if words:
        _show(words[1], as_json)
        return
    rows = [
        {"name": one.name, "distribution": one.distribution, "version": one.version, "requires": one.requires_r1core,
         "summary": one.summary}
        for one in registry.installed(registry.PLUGINS)
    ]  # fmt: skip
    if hook:
        from r1core.plugins.loading import Plugins

        rows = [row for row in rows if hook in Plugins.load([row["name"]], listing=True).hooks(row["name"])]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        print_table(
            ("name", "version", "r1core", "summary"),
            [(r["name"], r["version"], r["requires"], r["summary"]) for r in rows],
        )
    else:
        click.echo("no plugin" + (f" implements {hook}" if hook else " is installed"))


def _show(name: str, as_json: bool) -> None:
    from r1core.plugins.loading import Plugins

    plugins = Plugins.load([name], listing=True)
    entry = dict(plugins.lock()[0])
    config = plugins.contexts[name].config
    entry["settings"] = {} if config is None else config.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(entry, indent=2))
        return
    for key, value in entry.items():
        click.echo(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
