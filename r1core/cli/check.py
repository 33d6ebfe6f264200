"""`r1core check`: every problem at once, each with file and line, before any weight is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from r1core.cli.common import selects_run
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("check")
@selects_run
@click.option("--deep", is_flag=True, help="Also build the extra layers on a tiny model.")
@click.option("--json", "as_json", is_flag=True, help="Print problems and forecast as JSON.")
def command(selection: Selection, deep: bool, as_json: bool) -> None:
    """Report every problem of a recipe, its plugins and data; exit 2 when there is an error."""
    from r1core.check import check
    from r1core.recipe.problems import InvalidInput, render
    from r1core.words import counted

    try:
        found, forecast = check(open_bench(selection), deep=deep)
    except InvalidInput as invalid:
        found, forecast = list(invalid.problems), {}
    failed = any(problem.severity == "error" for problem in found)
    if as_json:
        click.echo(json.dumps({"problems": [asdict(p) for p in found], "forecast": forecast}, indent=2))
    else:
        for line in render(found):
            click.echo(line)
        for key, value in forecast.items():
            click.echo(f"{key}: {value}")
        if failed:
            errors = sum(problem.severity == "error" for problem in found)
            click.echo(f"{counted(errors, 'problem')}; nothing was run")
        else:
            click.echo("nothing stands in the way")
    raise SystemExit(2 if failed else 0)
