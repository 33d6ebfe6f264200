"""Verbs on texts and mentions: `link`, `eval`, `normalise`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from r1core_umls.assembly import linker_of
from r1core_umls.cli.common import base_option, json_option, linked_by, linking_options, opened, trained, umls
from r1core_umls.context import FLAGS
from r1core_umls.values import encode

if TYPE_CHECKING:
    from r1core_umls.linker import Link, Linker
    from r1core_umls.scoring import Evaluation, Figure


@umls.command()
@click.argument("text")
@base_option
@linking_options
@json_option
def link(text: str, path: Path | None, as_json: bool, **given: Any) -> None:
    """Show the concepts that TEXT mentions ("-" reads the text from standard input)."""
    linker = _linker(path, given)
    links = linker.link(sys.stdin.read() if text == "-" else text)
    if as_json:
        rows = [{"start": found.start, "end": found.end, **encode(found.value)} for found in links]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif links:
        Console().print(_table(links))
    else:
        click.echo("no concept found")


def _linker(path: Path | None, given: dict[str, Any]) -> Linker:
    from r1core_umls.progress import shown

    with shown(Console(stderr=True)) as progress:
        return linker_of(linked_by(path, given), progress)


def _table(links: list[Link]) -> Table:
    table = Table()
    for heading in ("Where", "Text", "Concept", "Name", "UMLS", "Method", "Said", "Also"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Where", "Concept", "Method"))
    for found in links:
        value = found.value
        where, also = f"{found.start}-{found.end}", ", ".join(value.alternatives)
        cuis = ", ".join(value.cuis)
        said = ", ".join(flag for flag in FLAGS if getattr(value, flag))
        method = value.method if value.method != "encoder" else f"encoder {value.probability:.2f}"
        table.add_row(where, value.matched, value.concept_id, value.name, cuis, method, said, also)
    return table


@umls.command("eval")
@click.argument("file", type=click.Path(path_type=Path))
@base_option
@linking_options
@json_option
def evaluate_file(file: Path, path: Path | None, as_json: bool, **given: Any) -> None:
    """Compare what is linked in the texts of FILE with its gold mentions: JSON lines, or PubTator."""
    from r1core_umls.gold import read_gold
    from r1core_umls.measure import measure

    documents = read_gold(file)
    linker = _linker(path, given)
    found = measure(linker, documents)
    if as_json:
        stated = {"release": linker.base.release, "fingerprint": linker.base.fingerprint()}
        click.echo(json.dumps(found.to_json() | stated, indent=1))
        return
    _print(found)


def _print(found: Evaluation) -> None:
    click.echo(f"{found.documents:,} documents, {found.gold_mentions:,} gold mentions, {found.found_mentions:,} found")
    if found.unknown_concepts:
        click.echo(f"{found.unknown_concepts:,} gold mentions are of concepts that this base does not hold")
    table = Table()
    for heading in ("What", "Precision", "Recall", "F1"):
        table.add_column(heading, no_wrap=True)
    for name, scores in found.scores.items():
        table.add_row(name, *(_shown(one) for one in (scores.precision, scores.recall, scores.f1)))
    Console().print(table)
    for k, figure in found.recall_at.items():
        click.echo(f"recall@{k} of gold mentions, {found.ranked_by}: {_shown(figure)}")
    click.echo("in brackets: 95 % interval, bootstrap over documents")


def _shown(figure: Figure) -> str:
    return "-" if figure.value != figure.value else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


@umls.command()
@click.argument("mentions", nargs=-1, required=True)
@click.option("-k", default=5, show_default=True, type=click.IntRange(1, 10), help="Concepts a mention.")
@click.option("--exact", is_flag=True, help="Sort all names of the base by all axes; slower.")
@base_option
@json_option
def normalise(mentions: tuple[str, ...], k: int, exact: bool, path: Path | None, as_json: bool, **filters: Any) -> None:
    """Say which concepts each of MENTIONS may mean, names that no file lists included."""
    from r1core_umls.normaliser import Normaliser

    base = opened(path, filters)
    found = Normaliser(base, trained(base), exact=exact).candidates(mentions, k)
    rows = [
        {"mention": mention, "id": concept.id, "name": concept.name, "probability": round(one.probability, 4)}
        | {"method": one.method}
        for mention, candidates in zip(mentions, found, strict=True)
        for one in candidates
        for concept in [base.concepts[one.position]]
    ]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        click.echo(f"{row['mention']}\t{row['id']}\t{row['name']}\t{row['probability']:.3f}\t{row['method']}")
