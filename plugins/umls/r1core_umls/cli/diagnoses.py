"""`r1core umls phenotypes`: the diseases whose phenotypes are most alike to some given ones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from r1core.api import UserError
from r1core_umls.cli.common import umls

NOTE = "research, not clinical advice"


@umls.command(help=f"Rank diseases by HPO terms, for instance HP:0001250 HP:0001263: {NOTE}.")
@click.argument("terms", nargs=-1, required=True, metavar="HP:ID...")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Diseases to show.")
@click.option(
    "--source",
    default="ORPHA",
    show_default=True,
    type=click.Choice(("ORPHA", "OMIM", "DECIPHER")),
    help="Whose diseases.",
)
@click.option("--annotations", type=click.Path(path_type=Path), help="A phenotype.hpoa (default: the installed one).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON that `r1core generate --facts` takes.")
def phenotypes(terms: tuple[str, ...], k: int, source: str, annotations: Path | None, as_json: bool) -> None:
    """Print the ranking, or facts with the candidates for the plugin `shortlist`."""
    from r1core_umls.annotations import read_diseases
    from r1core_umls.cache import load_or_build
    from r1core_umls.hpo import HpoSource
    from r1core_umls.phenotypes import Retriever

    base = load_or_build(HpoSource())
    diseases = [disease for disease in read_diseases(annotations) if disease.source == source]
    if not diseases:
        raise UserError(f"the annotations hold no disease of {source}", fix="name another --source")
    retriever = Retriever(base, diseases)
    found = retriever.rank(terms, k)
    if as_json:
        ranking = [{"id": one.id, "name": one.name, "score": round(score, 4)} for one, score in found]
        candidates = list(dict.fromkeys(one.name for one, _ in found))
        told = {"phenotypes": list(terms), "candidates": candidates, "ranking": ranking, "note": NOTE}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
        return
    for one, score in found:
        click.echo(f"{score:.3f}\t{one.id}\t{one.name}")
    click.echo(f"note: {NOTE}", err=True)
