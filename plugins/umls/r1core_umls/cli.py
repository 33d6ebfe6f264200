"""`r1core umls`: link a text from the command line; build the cache of a user's own Metathesaurus."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from r1core_umls.plugin import LinkAnnotator, UmlsConfig
from r1core_umls.values import encode

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase, Source
    from r1core_umls.linker import Link


@click.group(help="Link clinical text to concepts of HPO or the UMLS.")
def umls() -> None:
    """Group of the plugin's verbs."""


@umls.command()
@click.argument("text")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Folder with MRCONSO.RRF and MRSTY.RRF (default: HPO)."
)
@click.option("--language", "languages", multiple=True, default=("ENG",), show_default=True, help="LAT values to keep.")
@click.option("--vocabulary", "vocabularies", multiple=True, help="SAB values to keep (default: all).")
@click.option("--suppressed", is_flag=True, help="Keep suppressible names as well.")
@click.option("--abbreviations/--no-abbreviations", default=True, help="Link abbreviations that the text defines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def link(
    text: str,
    directory: Path | None,
    languages: tuple[str, ...],
    vocabularies: tuple[str, ...],
    suppressed: bool,
    abbreviations: bool,
    as_json: bool,
) -> None:
    """Show the concepts that TEXT mentions ("-" reads the text from standard input)."""
    config = UmlsConfig(
        source="rrf" if directory else "hpo",
        directory=directory,
        languages=languages,
        vocabularies=vocabularies,
        suppressed=suppressed,
        abbreviations=abbreviations,
    )
    if text == "-":
        text = sys.stdin.read()
    links = LinkAnnotator(config).linker.link(text)
    if as_json:
        rows = [{"start": found.start, "end": found.end, **encode(found.value)} for found in links]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif links:
        Console().print(_table(links))
    else:
        click.echo("no concept found")


def _table(links: list[Link]) -> Table:
    table = Table()
    for heading in ("Where", "Text", "Concept", "Name", "UMLS", "Method", "Also"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Where", "Concept", "Method"))
    for found in links:
        value = found.value
        where, also = f"{found.start}-{found.end}", ", ".join(value.alternatives)
        cuis = ", ".join(value.cuis)
        table.add_row(where, value.matched, value.concept_id, value.name, cuis, value.method, also)
    return table


@umls.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--language", "languages", multiple=True, default=("ENG",), show_default=True, help="LAT values to keep.")
@click.option("--vocabulary", "vocabularies", multiple=True, help="SAB values to keep (default: all).")
@click.option("--suppressed", is_flag=True, help="Keep suppressible names as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def build(
    directory: Path, languages: tuple[str, ...], vocabularies: tuple[str, ...], suppressed: bool, as_json: bool
) -> None:
    """Build the cached knowledge base from DIRECTORY, which holds MRCONSO.RRF and MRSTY.RRF."""
    from r1core_umls.cache import cache_root

    config = UmlsConfig(
        source="rrf", directory=directory, languages=languages, vocabularies=vocabularies, suppressed=suppressed
    )
    began = time.perf_counter()
    base = _build(config.open())
    report = base.report
    names = base.names()
    row = {
        "source": report.source,
        "concepts": len(base),
        "names": names,
        "rows": report.rows,
        "kept": report.kept,
        "filtered": report.filtered,
        "malformed": report.malformed,
        "malformed_lines": list(report.malformed_lines),
        "seconds": round(time.perf_counter() - began, 2),
        "cache": str(cache_root() / base.fingerprint()),
    }
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    click.echo(f"{len(base):,} concepts, {names:,} names from {report.rows:,} rows in {row['seconds']} s")
    click.echo(
        f"{report.kept:,} rows kept, {report.filtered:,} left out by the filters, {report.malformed:,} malformed"
    )
    for line in report.malformed_lines:
        click.echo(f"  {line}")
    if report.malformed > len(report.malformed_lines):
        click.echo(f"  … and {report.malformed - len(report.malformed_lines):,} more")
    click.echo(f"cache: {row['cache']}")


def _build(source: Source) -> KnowledgeBase:
    from r1core_umls.cache import load_or_build

    console = Console(stderr=True)
    if not console.is_terminal:
        return load_or_build(source)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=source.size())
        return load_or_build(source, lambda done: progress.update(task, completed=done))
