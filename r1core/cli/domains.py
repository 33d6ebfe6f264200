"""`r1core domains`."""

from __future__ import annotations

import json

import click

from r1core.cli.table import print_table


@click.command("domains")
@click.argument("words", nargs=-1, metavar="[show NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List installed domains without importing any, or `show NAME` with its recipe."""
    from r1core.errors import UserError
    from r1core.plugins import registry
    from r1core.plugins.find import load_domain

    if words and (len(words) != 2 or words[0] != "show"):
        raise UserError(f"domains {' '.join(words)}: not understood", fix="r1core domains, or r1core domains show NAME")
    if words:
        domain = load_domain(words[1])
        sources = {s.name: list(s.tasks) for s in domain.sources}
        shown = {"name": domain.name, "summary": domain.summary, "recipe": str(domain.recipe), "sources": sources}
        click.echo(json.dumps(shown, indent=2) if as_json else "\n".join(f"{k}: {v}" for k, v in shown.items()))
        if not as_json:
            click.echo("\n" + domain.recipe.read_text(encoding="utf-8"))
        return
    rows = [(one.name, one.version, one.summary) for one in registry.installed(registry.DOMAINS)]
    if as_json:
        click.echo(json.dumps([dict(zip(("name", "version", "summary"), row, strict=True)) for row in rows], indent=2))
    elif rows:
        print_table(("name", "version", "summary"), rows)
    else:
        click.echo("no domain is installed")
