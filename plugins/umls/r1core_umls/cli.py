"""`r1core umls`: link a text, normalise a mention, build and look into a knowledge base, list a concept's relatives."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from r1core.api import UserError
from r1core_umls.plugin import LinkAnnotator, UmlsConfig
from r1core_umls.values import encode

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase
    from r1core_umls.linker import Link
    from r1core_umls.ranking import Fitted
    from r1core_umls.relations import Replacement

BASE_HELP = "folder with MRCONSO.RRF and MRSTY.RRF, folder with hp.obo, or JSONL file (default: the installed HPO)"
_FILTERS = (
    click.option(
        "--language", "languages", multiple=True, default=("ENG",), show_default=True, help="LAT values to keep."
    ),
    click.option("--vocabulary", "vocabularies", multiple=True, help="SAB values to keep (default: all)."),
    click.option("--semantic-type", "semantic_types", multiple=True, help="TUIs to keep (default: all)."),
    click.option("--suppressed", is_flag=True, help="Keep suppressible names as well."),
    click.option("--broader", is_flag=True, help="Count every RB and RN relation as is-a."),
)
Verb = Callable[..., None]


def _filters(verb: Verb) -> Verb:
    for option in reversed(_FILTERS):
        verb = option(verb)
    return verb


def _base_option(verb: Verb) -> Verb:
    option = click.option("--base", "--directory", "path", type=click.Path(path_type=Path), help=f"The {BASE_HELP}.")
    return option(_filters(verb))


_base_argument = click.argument("path", type=click.Path(path_type=Path), required=False)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help="Link clinical text to concepts of HPO or the UMLS.")
def umls() -> None:
    """Group of the plugin's verbs."""


@umls.command()
@click.argument("text")
@_base_option
@click.option("--abbreviations/--no-abbreviations", default=True, help="Link abbreviations that the text defines.")
@_as_json
def link(text: str, path: Path | None, abbreviations: bool, as_json: bool, **filters: Any) -> None:
    """Show the concepts that TEXT mentions ("-" reads the text from standard input)."""
    config = _config(path, filters).model_copy(update={"abbreviations": abbreviations})
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


@umls.command(help=f"Build the cached knowledge base from PATH: a {BASE_HELP}.")
@_base_argument
@_filters
@_as_json
def build(path: Path | None, as_json: bool, **filters: Any) -> None:
    """Build a base, or open it where it is built already, and print what was read."""
    began = time.perf_counter()
    base = _open(path, filters)
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
@_base_argument
@_filters
@click.option("--verify", "check", is_flag=True, help="Compare the sha256 of every file with the recorded one.")
@_as_json
def kb(path: Path | None, check: bool, as_json: bool, **filters: Any) -> None:
    """Print the figures of a base."""
    from r1core_umls.cache import verify

    base = _open(path, filters)
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
@_base_argument
@_filters
def train(path: Path | None, **filters: Any) -> None:
    """Train encoder and ranker, or say where they stand already."""
    from r1core_umls.trained import folder_of

    base = _open(path, filters)
    began = time.perf_counter()
    _trained(base)
    click.echo(f"encoder and ranker of {base.number_of_names:,} names, {time.perf_counter() - began:.0f} s")
    if base.licence:
        click.echo(f"trained on licensed names: {base.licence}")
    click.echo(f"cache: {folder_of(base)}")


@umls.command()
@click.argument("mentions", nargs=-1, required=True)
@click.option("-k", default=5, show_default=True, type=click.IntRange(1, 20), help="Concepts a mention.")
@_base_option
@_as_json
def normalise(mentions: tuple[str, ...], k: int, path: Path | None, as_json: bool, **filters: Any) -> None:
    """Say which concepts each of MENTIONS may mean, names that no file lists included."""
    from r1core_umls.normaliser import Normaliser

    base = _open(path, filters)
    found = Normaliser(base, _trained(base)).candidates(mentions, k)
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


def _trained(base: KnowledgeBase) -> Fitted:
    from r1core_umls.progress import shown
    from r1core_umls.trained import load_or_train

    with shown(Console(stderr=True)) as progress:
        return load_or_train(base, progress)


def _walking(direction: str, what: str) -> None:
    @umls.command(direction, help=f"List {what} of the concept ID.")
    @click.argument("concept_id", metavar="ID")
    @_base_option
    @_as_json
    def walk(concept_id: str, path: Path | None, as_json: bool, **filters: Any) -> None:
        base = _open(path, filters)
        concept_id, replaced = _current(base, concept_id)
        found = getattr(base, direction)(concept_id)
        rows = [{"id": identifier, "name": base[identifier].name} for identifier in found]
        if as_json:
            told = {"id": concept_id, "name": base[concept_id].name, "replaces": replaced, direction: rows}
            stated = {"release": base.release, "licence": base.licence, "fingerprint": base.fingerprint()}
            click.echo(json.dumps(told | stated, indent=1, ensure_ascii=False))
            return
        if replaced:
            click.echo(f"{replaced} is now {concept_id} {base[concept_id].name}", err=True)
        for row in rows:
            click.echo(f"{row['id']}\t{row['name']}")


_walking("descendants", "every kind")
_walking("ancestors", "everything above")


def _current(base: KnowledgeBase, concept_id: str) -> tuple[str, str]:
    """Return the id to use and the one it replaces ("" where it is in use); only a `SY` replacement is taken."""
    if concept_id in base:
        return concept_id, ""
    found: tuple[Replacement, ...] = base.replacements(concept_id)
    same = [replacement.id for replacement in found if replacement.relation == "SY" and replacement.id in base]
    if len(same) == 1:
        return same[0], concept_id
    told = ", ".join(f"{replacement.relation} {replacement.id}".strip() for replacement in found)
    raise UserError(
        f"{concept_id} is not in {base.report.source}" + (f"; it was retired: {told}" if told else ""),
        fix="name a concept of this base; r1core umls link finds one by its name",
    )


def _config(path: Path | None, filters: dict[str, Any]) -> UmlsConfig:
    if path is None or (path / "hp.obo").is_file():
        if filters["semantic_types"] or filters["vocabularies"]:
            raise UserError(
                "HPO states no semantic types and no vocabularies",
                fix="leave --semantic-type and --vocabulary out, or name a Metathesaurus or a JSONL file",
            )
        return UmlsConfig(source="hpo", directory=path)
    if path.is_file():
        return UmlsConfig(source="jsonl", file=path, **filters)
    return UmlsConfig(source="rrf", directory=path, **filters)


def _open(path: Path | None, filters: dict[str, Any]) -> KnowledgeBase:
    from r1core_umls.cache import load_or_build
    from r1core_umls.progress import shown

    with shown(Console(stderr=True)) as progress:
        return load_or_build(_config(path, filters).open(), progress)
