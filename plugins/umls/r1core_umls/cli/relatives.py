"""Verbs on the hierarchy: `descendants`, `ancestors`, `hierarchy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from r1core.api import UserError
from r1core_umls.cli.common import base_option, json_option, opened, umls

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase
    from r1core_umls.relations import Replacement


def _walking(direction: str, what: str) -> None:
    @umls.command(direction, help=f"List {what} of the concept ID.")
    @click.argument("concept_id", metavar="ID")
    @base_option
    @json_option
    def walk(concept_id: str, path: Path | None, as_json: bool, **filters: Any) -> None:
        base = opened(path, filters)
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


@umls.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@base_option
@click.option("--under", "roots", multiple=True, metavar="ID", help="This concept and those below it only.")
@click.option("--names", is_flag=True, help="Write preferred names in place of ids.")
def hierarchy(out: Path, path: Path | None, roots: tuple[str, ...], names: bool, **filters: Any) -> None:
    """Write OUT: lines of child, tab, parent, as clinical rules read them for "and descendants"."""
    from r1core_umls.hierarchy import write_hierarchy

    base = opened(path, filters)
    pairs, circles = write_hierarchy(base, out, [_current(base, root)[0] for root in roots], names=names)
    click.echo(f"{pairs:,} pairs: {out}")
    if circles:
        click.echo(f"{circles:,} pairs left out: their concepts are kinds of themselves in this release", err=True)
    if base.licence:
        click.echo(f"licensed: {base.licence}", err=True)


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
