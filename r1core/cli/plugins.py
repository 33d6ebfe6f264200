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
        from r1core.cli.listing import each_loaded

        _refuse_unknown(hook)
        having = {name for name, plugins in each_loaded(row["name"] for row in rows) if hook in plugins.hooks(name)}
        rows = [row for row in rows if row["name"] in having]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        print_table(
            ("name", "version", "r1core", "summary"),
            [(r["name"], r["version"], r["requires"], r["summary"]) for r in rows],
        )
    else:
        click.echo("no plugin" + (f" implements {hook}" if hook else " is installed"))


def _refuse_unknown(hook: str) -> None:
    import inspect

    from r1core import hookspecs
    from r1core.errors import UserError
    from r1core.recipe.problems import did_you_mean

    known = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction)]
    if hook not in known:
        near = did_you_mean(hook, known)
        raise UserError(f"no hook {hook!r}", fix=f"did you mean {near!r}?" if near else f"one of {', '.join(known)}")


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
