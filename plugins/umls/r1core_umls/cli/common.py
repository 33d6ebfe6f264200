"""What the verbs share: the group, the options that name a base, and opening it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from r1core.api import UserError
from r1core_umls.config import UmlsConfig

if TYPE_CHECKING:
    from r1core_umls.knowledge import KnowledgeBase
    from r1core_umls.ranking import Fitted

BASE_HELP = "folder with MRCONSO.RRF and MRSTY.RRF, folder with hp.obo, or JSONL file (default: the installed HPO)"
_OPTIONS = (
    click.option(
        "--language", "languages", multiple=True, default=("ENG",), show_default=True, help="LAT values to keep."
    ),
    click.option("--vocabulary", "vocabularies", multiple=True, help="SAB values to keep (default: all)."),
    click.option("--semantic-type", "semantic_types", multiple=True, help="TUIs to keep (default: all)."),
    click.option("--suppressed", is_flag=True, help="Keep suppressible names as well."),
    click.option("--broader", is_flag=True, help="Count every RB and RN relation as is-a."),
)
_LINKING = (
    click.option("--abbreviations/--no-abbreviations", default=True, help="Link abbreviations that the text defines."),
    click.option("--under", multiple=True, metavar="ID", help="Link this concept and those below it only."),
    click.option("--encoder", is_flag=True, help="Answer mentions that no name equals by the trained encoder."),
    click.option(
        "--min-probability",
        type=click.FloatRange(0, 1),
        help="Of the encoder's answers; else it abstains (default: 0.5).",
    ),
    click.option("--pipeline", metavar="NAME", help="spaCy package or folder that finds the encoder's mentions."),
)
Verb = Callable[..., None]


def filter_options(verb: Verb) -> Verb:
    """Add the options that say what of a base to keep."""
    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


def base_option(verb: Verb) -> Verb:
    """Add `--base` and the filters."""
    option = click.option("--base", "--directory", "path", type=click.Path(path_type=Path), help=f"The {BASE_HELP}.")
    return option(filter_options(verb))


def linking_options(verb: Verb) -> Verb:
    """Add the options that say how texts are linked; `linked_by` reads them."""
    for option in reversed(_LINKING):
        verb = option(verb)
    return verb


base_argument = click.argument("path", type=click.Path(path_type=Path), required=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help="Link clinical text to concepts of HPO or the UMLS.")
def umls() -> None:
    """Group of the plugin's verbs."""


def config_of(path: Path | None, filters: dict[str, Any]) -> UmlsConfig:
    """Return the configuration of a path and the filters. Raises UserError where they do not go together."""
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


def linked_by(path: Path | None, given: dict[str, Any]) -> UmlsConfig:
    """Return the configuration of a path, the filters and the options of linking.

    Raises
    ------
    UserError : they do not go together.
    """
    given = dict(given)
    how = {key: given.pop(key) for key in ("abbreviations", "under", "encoder", "min_probability", "pipeline")}
    if not how["encoder"] and (how["pipeline"] is not None or how["min_probability"] is not None):
        raise UserError("--pipeline and --min-probability say how the encoder works", fix="add --encoder")
    return config_of(path, given).model_copy(update={key: value for key, value in how.items() if value is not None})


def opened(path: Path | None, filters: dict[str, Any]) -> KnowledgeBase:
    """Open a base, building it where it is not built yet."""
    from r1core_umls.cache import load_or_build
    from r1core_umls.progress import shown

    with shown(Console(stderr=True)) as progress:
        return load_or_build(config_of(path, filters).open(), progress)


def trained(base: KnowledgeBase) -> Fitted:
    """Return the encoder of a base, training it where it is not trained yet."""
    from r1core_umls.progress import shown
    from r1core_umls.trained import load_or_train

    with shown(Console(stderr=True)) as progress:
        return load_or_train(base, progress)
