"""`r1core align`: facts onto a grid of dates, each value with its filing, and the audit of such a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from r1core.api import UserError

if TYPE_CHECKING:
    from r1core_alignment.aligned import Aligned
    from r1core_alignment.auditing import AuditReport
    from r1core_alignment.facts import Facts

_FILE = click.Path(path_type=Path, dir_okay=False)
_SHOWN = 20
"""Findings and reasons that are printed; the rest is counted."""


def _listed(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def _which(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which facts, and how they are used."""
    options = (
        click.option("--concepts", callback=_listed, help="Such as Assets,us-gaap:Revenues; without it: all."),
        click.option("--entities", callback=_listed, help="CIKs, or the entities of a CSV; without it: all."),
        click.option(
            "--lag", type=int, default=0, show_default=True, help="Days that a fact stays unknown beyond its filing."
        ),
        click.option("--max-age", type=int, help="Days from a period's end after which it is no longer shown."),
        click.option("--additive", callback=_listed, help="Concepts whose periods add up, whatever their unit says."),
        click.option("--non-additive", callback=_listed, help="Concepts whose periods do not add up."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _where(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which dates and measures."""
    options = (
        click.option("--grid", default="month", show_default=True, help="day, week (Fridays), month, quarter (ends)."),
        click.option("--dates", type=_FILE, help="File of dates, one a line, in place of --grid."),
        click.option("--start", help="First date of the grid (YYYY-MM-DD)."),
        click.option("--end", help="Last date of the grid."),
        click.option(
            "--measures",
            "--measure",
            callback=_listed,
            help="Of instant, quarter, six_months, nine_months, year, ttm. [default: instant,quarter,year,ttm]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("facts", nargs=-1, required=True, type=_FILE)
@click.option("--list", "listing", is_flag=True, help="Name the concepts in FACTS, and stop.")
@_where
@_which
@click.option("--out", type=_FILE, help="Write the table: .csv, .csv.gz, .json, .jsonl or .parquet.")
@click.option("--audit", "audited", is_flag=True, help="Recompute every cell; exit code 1 for a finding.")
@click.option("--recheck", type=_FILE, help="Audit a table that --out wrote, with the same --lag and the like.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def align(
    ctx: click.Context,
    facts: tuple[Path, ...],
    listing: bool,
    grid: str,
    dates: Path | None,
    start: str | None,
    end: str | None,
    concepts: tuple[str, ...],
    entities: tuple[str, ...],
    measures: tuple[str, ...],
    lag: int,
    max_age: int | None,
    additive: tuple[str, ...],
    non_additive: tuple[str, ...],
    out: Path | None,
    audited: bool,
    recheck: Path | None,
    as_json: bool,
) -> None:
    """Put reported FACTS (companyfacts .json or tidy .csv, plain or .gz) onto a grid of dates, as they were known.

    A fact is known strictly after its filing date. Every value carries the filing that it comes from.
    """
    from r1core_alignment import tables
    from r1core_alignment.aligning import align as aligned_on
    from r1core_alignment.auditing import audit
    from r1core_alignment.periods import DEFAULT
    from r1core_alignment.reading import read
    from r1core_alignment.settings import Settings
    from r1core_alignment.tidy import concat

    if out is not None:
        tables.check_format(out)
    held = concat([read(path) for path in facts])
    if listing:
        _list(held.select(concepts or None, entities or None), as_json)
    elif recheck is not None:
        settings = Settings(lag, max_age, frozenset(additive), frozenset(non_additive))
        _report(ctx, audit(tables.read(recheck), held, settings=settings), as_json)
    else:
        made = aligned_on(
            held, grid=_dates(dates) if dates else grid, start=start, end=end, concepts=concepts or None,
            entities=entities or None, measures=measures or DEFAULT, lag=lag, max_age=max_age, additive=additive,
            non_additive=non_additive,
        )  # fmt: skip
        _give(made, out, silent=audited, as_json=as_json)
        if audited:
            _report(ctx, made.audit(), as_json)


def _give(made: Aligned, out: Path | None, *, silent: bool, as_json: bool) -> None:
    """Write the table, or print it; what was left out and is not derived goes to stderr."""
    from r1core_alignment import tables

    _tell_withheld(made)
    if out is not None:
        rows = tables.write(made, out)
        click.echo(f"{out}: {rows} values on {len(made.days)} dates", err=as_json)
    elif not silent:
        table = made.long(exact=True)
        click.echo(tables.as_json(table) if as_json else "\n".join(tables.readable(table)), nl=not as_json)


def _dates(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no readable dates ({error})", fix="write YYYY-MM-DD, one a line") from error


def _list(held: Facts, as_json: bool) -> None:
    from r1core_alignment.tables import in_columns

    named = held.concepts()
    for name in ("first_end", "last_end", "last_filed"):
        named[name] = named[name].dt.strftime("%Y-%m-%d")
    if as_json:
        click.echo(named.to_json(orient="records", indent=1))
        return
    numbers = ("facts", "instants")
    click.echo("\n".join(in_columns(list(named), named.to_numpy().tolist(), right=numbers)))


def _tell_withheld(made: Aligned) -> None:
    left = made.facts.left_out
    for reason, count in left["reason"].value_counts().items() if len(left) else ():
        click.echo(f"left out: {count} facts, because {reason}", err=True)
    withheld = made.withheld.drop_duplicates(["concept", "unit"])
    for row in withheld.head(_SHOWN).itertuples():
        click.echo(f"not derived: {row.concept}: {row.reason}", err=True)
    if len(withheld) > _SHOWN:
        click.echo(f"not derived: {len(withheld) - _SHOWN} more concepts", err=True)


def _report(ctx: click.Context, found: AuditReport, as_json: bool) -> None:
    import dataclasses
    import json

    if as_json:
        click.echo(json.dumps({"ok": found.ok, **dataclasses.asdict(found)}, indent=1))
    else:
        for one in found.findings[:_SHOWN]:
            click.echo(str(one))
        if len(found.findings) > _SHOWN:
            click.echo(f"... {len(found.findings) - _SHOWN} more")
        click.echo(str(found))
    if not found.ok:
        ctx.exit(1)
