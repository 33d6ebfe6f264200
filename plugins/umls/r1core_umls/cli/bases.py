"""Verbs on a base as a whole: `build`, `kb`, `train`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from r1core.api import UserError
from r1core_umls.cli.common import BASE_HELP, base_argument, filter_options, json_option, opened, trained, umls

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase


@umls.command(help=f"Build the cached knowledge base from PATH: a {BASE_HELP}.")
@base_argument
@filter_options
@json_option
def build(path: Path | None, as_json: bool, **filters: Any) -> None:
    """Build a base, or open it where it is built already, and print what was read."""
    began = time.perf_counter()
    base = opened(path, filters)
    seconds = round(time.perf_counter() - began, 2)
    report = base.report
    row = {**_stated(base), "seconds": seconds}
    if as_json:
        click.echo(json.dumps(row, indent=1, ensure_ascii=False))
        return
    click.echo(f"{len(base):,} concepts, {base.number_of_names:,} names from {report.rows:,} rows in {seconds} s")
    click.echo(
        f"{report.kept:,} rows kept, {report.filtered:,} left out by the filters, {report.malformed:,} malformed"
    )
    for line in report.malformed_lines:
        click.echo(f"  {line}")
    if report.malformed > len(report.malformed_lines):
        click.echo(f"  … and {report.malformed - len(report.malformed_lines):,} more")
    for note in report.notes:
        click.echo(note)
    click.echo(f"release: {base.release}")
    if base.licence:
        click.echo(f"licence: {base.licence}")
    click.echo(f"cache: {row['cache']}")


@umls.command(help=f"Show what the knowledge base of PATH holds: a {BASE_HELP}.")
@base_argument
@filter_options
@click.option("--verify", "check", is_flag=True, help="Compare the sha256 of every file with the recorded one.")
@json_option
def kb(path: Path | None, check: bool, as_json: bool, **filters: Any) -> None:
    """Print the figures of a base."""
    from r1core_umls.cache import verify

    base = opened(path, filters)
    damaged = verify(base) if check else []
    if damaged:
        row = _stated(base)
        raise UserError(f"{row['cache']}: {', '.join(damaged)} differ from what was built", fix=f"rm -r {row['cache']}")
    rows = _stated(base) | ({"verified": True} if check else {})
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for name, value in rows.items():
        if name not in ("malformed_lines", "notes"):
            click.echo(f"{name}: {format(value, ',') if type(value) is int else value}")
    for line in (*base.report.notes, *base.report.malformed_lines):
        click.echo(f"  {line}")


def _stated(base: KnowledgeBase) -> dict[str, Any]:
    from r1core_umls.cache import cache_root

    folder, report = cache_root() / base.fingerprint(), base.report
    return {
        "source": report.source,
        "release": base.release,
        "licence": base.licence,
        "fingerprint": base.fingerprint(),
        "concepts": len(base),
        "names": base.number_of_names,
        "is_a": report.parents,
        "is_a_unknown": report.parents_unknown,
        "retired": len(base.retired),
        "rows": report.rows,
        "kept": report.kept,
        "filtered": report.filtered,
        "malformed": report.malformed,
        "malformed_lines": list(report.malformed_lines),
        "notes": list(report.notes),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "cache": str(folder),
    }


@umls.command(help=f"Train the encoder on the synonyms of PATH: a {BASE_HELP}.")
@base_argument
@filter_options
def train(path: Path | None, **filters: Any) -> None:
    """Train encoder and ranker, or say where they stand already."""
    from r1core_umls.trained import folder_of

    base = opened(path, filters)
    began = time.perf_counter()
    trained(base)
    click.echo(f"encoder and ranker of {base.number_of_names:,} names, {time.perf_counter() - began:.0f} s")
    if base.licence:
        click.echo(f"trained on licensed names: {base.licence}")
    click.echo(f"cache: {folder_of(base)}")
