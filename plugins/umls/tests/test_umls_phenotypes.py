"""The retriever against similarity worked out term by term on a small ontology; the annotations as they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from r1core_umls.annotations import UNSTATED, Disease, installed_annotations, read_diseases
from r1core_umls.cli.diagnoses import phenotypes
from r1core_umls.knowledge import Concept, KnowledgeBase
from r1core_umls.phenotypes import RARELY, Retriever

from r1core.api import UserError

# A diamond: `bd` is a kind of both `b` and `d`; `root` stands over everything.
PARENTS = {
    "root": (),
    "a": ("root",),
    "b": ("root",),
    "d": ("root",),
    "aa": ("a",),
    "ab": ("a",),
    "bd": ("b", "d"),
    "bdx": ("bd",),
    "unshown": ("d",),
}
DISEASES = [
    Disease("ORPHA:1", "First", {"aa": 1.0, "bd": 0.17}),
    Disease("ORPHA:2", "Second", {"ab": 0.5}),
    Disease("ORPHA:3", "Third", {"bdx": 0.9, "d": 0.025, "a": 0.5}),
    Disease("ORPHA:4", "Fourth", {"b": 1.0}),
]
PATIENTS = [["aa"], ["bdx", "ab"], ["a", "b", "d"], ["unshown"], ["root"], ["bd", "aa", "unshown"]]


@pytest.fixture
def retriever(base_of: Callable[..., KnowledgeBase]) -> Retriever:
    return Retriever(base_of(*(Concept(term, term.upper(), parents=up) for term, up in PARENTS.items())), DISEASES)


def over(term: str) -> set[str]:
    """A term and everything above it."""
    return {term}.union(*(over(up) for up in PARENTS[term]))


def information(term: str) -> float:
    shown = sum(any(term in over(one) for one in disease.phenotypes) for disease in DISEASES)
    return -math.log((shown + 1) / (len(DISEASES) + 1))


def lin(one: str, other: str) -> float:
    common = max(information(term) for term in over(one) & over(other))
    both = information(one) + information(other)
    return 2 * common / both if both else 0.0


def weighted(pairs: list[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total if total else 0.0


def alike(patient: list[str], disease: Disease) -> float:
    there = [(information(q), max(lin(q, t) for t in disease.phenotypes)) for q in patient]
    back = [
        (information(t) * (frequency + RARELY), max(lin(q, t) for q in patient))
        for t, frequency in disease.phenotypes.items()
    ]
    return (weighted(there) + weighted(back)) / 2


@pytest.mark.parametrize("patient", PATIENTS, ids=" ".join)
def test_scores_are_those_of_a_walk_over_every_pair_of_terms(retriever: Retriever, patient: list[str]) -> None:
    assert retriever.scores(patient).tolist() == pytest.approx([alike(patient, d) for d in DISEASES], abs=1e-6)


def test_the_order_and_repetition_of_phenotypes_do_not_count(retriever: Retriever) -> None:
    assert retriever.scores(["ab", "bdx", "ab"]).tolist() == retriever.scores(["bdx", "ab"]).tolist()


def test_a_disease_is_the_most_alike_to_its_own_phenotypes(retriever: Retriever) -> None:
    for disease in DISEASES:
        (first, score), *others = retriever.rank(disease.phenotypes, 4)
        assert first == disease
        assert score == pytest.approx(1.0, abs=1e-6)
        assert [one for _, one in others] == sorted((one for _, one in others), reverse=True)


def test_what_cannot_be_ranked_is_told(retriever: Retriever) -> None:
    with pytest.raises(UserError, match="no phenotype is given"):
        retriever.scores([])
    with pytest.raises(UserError, match="HP:1 is no phenotype"):
        retriever.scores(["aa", "HP:1"])
    with pytest.raises(UserError, match="no disease"):
        Retriever(retriever.base, [])


HEAD = "#version: 1\ndatabase_id\tdisease_name\tqualifier\thpo_id\treference\tfrequency\taspect\n"


def written(folder: Path, *rows: str) -> Path:
    path = folder / "phenotype.hpoa"
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_phenotypes_are_read_with_their_frequency(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "OMIM:1\tOne\t\tHP:1\tx\t1/4\tP",
        "OMIM:1\tOne\t\tHP:1\ty\t3/4\tP",  # stated twice: the higher counts
        "OMIM:1\tOne\t\tHP:2\tx\t20%\tP",
        "OMIM:1\tOne\t\tHP:3\tx\t\tP",
        "OMIM:1\tOne\t\tHP:4\tx\tHP:0040283\tP",
        "OMIM:1\tOne\tNOT\tHP:5\tx\t\tP",
        "OMIM:1\tOne\t\tHP:6\tx\t0/7\tP",
        "OMIM:1\tOne\t\tHP:7\tx\t\tI",
        "ORPHA:2\tNothing\tNOT\tHP:1\tx\t\tP",
        "ORPHA:3\tThree\t\tHP:1\tx\tHP:0040280\tP",
    )
    assert read_diseases(path) == [
        Disease("OMIM:1", "One", {"HP:1": 0.75, "HP:2": 0.2, "HP:3": UNSTATED, "HP:4": 0.17}),
        Disease("ORPHA:3", "Three", {"HP:1": 1.0}),
    ]


@pytest.mark.parametrize("frequency", ["often", "1/0", "x%", "1/2/3"])
def test_a_frequency_that_is_none_is_told_with_its_line(tmp_path: Path, frequency: str) -> None:
    path = written(tmp_path, f"OMIM:1\tOne\t\tHP:1\tx\t{frequency}\tP")
    with pytest.raises(UserError, match=r"phenotype\.hpoa:3: frequency"):
        read_diseases(path)


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.tsv"
    path.write_text("disease_name\thpo_id\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.tsv:1: no column aspect, database_id"):
        read_diseases(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_diseases(tmp_path / "absent")


def test_the_installed_annotations_are_of_the_installed_ontology(hpo: KnowledgeBase) -> None:
    rows = installed_annotations().read_text(encoding="utf-8").splitlines()
    found = {disease.id: disease for disease in read_diseases()}
    assert len(found) > 12_000
    terms = {term for disease in found.values() for term in disease.phenotypes}
    assert all(term in hpo for term in terms)
    # One disease, counted from the lines themselves.
    lines = [row.split("\t") for row in rows if row.startswith("ORPHA:705\t")]
    assert set(found["ORPHA:705"].phenotypes) == {row[3] for row in lines if row[2] != "NOT" and row[10] == "P"}


def test_the_verb_ranks_and_says_what_it_is_not(cache: Path) -> None:
    annotated = next(d for d in read_diseases() if d.id == "ORPHA:705")
    terms = list(annotated.phenotypes)
    ran = CliRunner().invoke(phenotypes, [*terms, "-k", "3"])
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[0] == f"1.000\tORPHA:705\t{annotated.name}"
    assert "research, not clinical advice" in ran.stderr
    told = json.loads(CliRunner().invoke(phenotypes, [*terms, "-k", "3", "--json"]).stdout)
    assert told["candidates"][0] == annotated.name
    assert told["phenotypes"] == terms
    assert told["note"] == "research, not clinical advice"
