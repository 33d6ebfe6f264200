"""The tasks beside the main one: what links two sources, what is asked in which split, and that nothing leaks."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from r1core_medical.domain import MEDICAL
from r1core_medical.tasks import brand, diagnosis, layperson
from r1core_umls.annotations import Disease, installed_annotations
from r1core_umls.concepts import Concept, Synonym
from r1core_umls.hpo import installed_obo

from r1core import api
from r1core.recipe.schema import Recipe

FOLDER = MEDICAL.resources / "tasks"


@pytest.mark.parametrize("recipe", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_goes_over_the_domains_own_and_names_one_of_its_data_sets(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    own, whole = tomllib.loads(text), tomllib.loads(MEDICAL.recipe.read_text(encoding="utf-8"))
    for table, keys in own.items():
        whole[table] = {**whole.get(table, {}), **keys}
    whole["plugins"] = {name: keys for name, keys in whole["plugins"].items() if name in own["run"]["plugins"]}
    assert Recipe.model_validate(whole).data.source in {source.name for source in MEDICAL.sources}
    assert "Research, not clinical advice" in text
    assert "research, not clinical advice" in own["report"]["title"]


def test_disorders_are_linked_by_names_that_are_alone_in_their_source() -> None:
    def named(disease_id: str, name: str) -> Disease:
        return Disease(disease_id, name, {"HP:1": 1.0})

    found = diagnosis.linked(
        [
            named("OMIM:1", "Rickets, hypophosphatemic, autosomal recessive"),
            named("OMIM:2", "Pendred syndrome"),
            named("OMIM:3", "Twice"),
            named("OMIM:4", "TWICE"),
            named("OMIM:5", "Split"),
            named("OMIM:6", "Usher syndrome, type 1"),
            named("DECIPHER:7", "Alone"),
            named("ORPHA:1", "Autosomal recessive hypophosphatemic rickets"),
            named("ORPHA:2", "Pendred Syndrome"),
            named("ORPHA:3", "Twice"),
            named("ORPHA:5", "Split"),
            named("ORPHA:50", "split"),
            named("ORPHA:6", "Usher syndrome type 2"),
            named("ORPHA:7", "Alone"),
        ]
    )
    assert [(one.id, other.id) for one, other in found] == [("OMIM:1", "ORPHA:1"), ("OMIM:2", "ORPHA:2")]


def test_installed_disorders_are_linked_and_apart() -> None:
    names: dict[str, set[str]] = {"OMIM": set(), "ORPHA": set()}
    ids: dict[tuple[str, str], set[str]] = {}
    for line in installed_annotations().read_text(encoding="utf-8").splitlines():
        values = line.split("\t")
        source = values[0].partition(":")[0]
        if source in names and values[2] != "NOT" and values[10] == "P":
            words = " ".join(sorted(re.sub(r"[\W]+", " ", values[1].lower()).split()))
            ids.setdefault((source, words), set()).add(values[0])
    both = {w for (source, w), known in ids.items() if source == "OMIM" and len(known) == 1}
    both &= {w for (source, w), known in ids.items() if source == "ORPHA" and len(known) == 1}
    pairs = {split: diagnosis.disorders(split) for split in ("val", "test")}
    assert {split: len(found) for split, found in pairs.items()} == {"val": 260, "test": 398}
    assert abs(sum(map(len, pairs.values())) - len(both)) <= 2  # a disease whose phenotypes are all excluded
    assert not {b.id for _, b in pairs["val"]} & {b.id for _, b in pairs["test"]}


def test_a_question_names_phenotypes_and_never_the_disease() -> None:
    retriever = diagnosis.orphanet()
    query, target = diagnosis.disorders("val")[0]
    asked = diagnosis.prompt(retriever, query.phenotypes)
    signs = asked.removeprefix("Which rare disease shows these signs?\n").split("; ")
    assert len(signs) == min(diagnosis.SHOWN, len(query.phenotypes))
    assert set(signs) <= {retriever.name(term) for term in query.phenotypes}
    rows = list(zip(diagnosis.Diagnosis().read("train"), retriever.diseases, strict=True))
    assert all(row.fields["described_by"] == disease.id for row, disease in rows)  # of Orphanet alone
    assert all("candidates" not in (row.facts or {}) for row, _ in rows)
    assert target.source == "ORPHA"


def test_what_a_layperson_says_is_new_to_its_term_and_means_one_thing() -> None:
    def term(identifier: str, name: str, *said: str) -> Concept:
        return Concept(identifier, name, tuple(Synonym(one, "EXACT", "layperson") for one in said), ())

    found = layperson.sayings(
        [
            term("X:1", "Macrocephaly", "Big head", "big heads", "Macrocephaly."),
            term("X:2", "Wide skull", "Broad head"),
            term("X:3", "Broad cranium", "Broad head"),  # means two terms
            Concept("X:4", "Myopia", (Synonym("Close sighted", "EXACT", "layperson"), Synonym("Close sighted"))),
            Concept("X:5", "Cough", (Synonym("Barking", "RELATED", "layperson"),)),
        ]
    )
    assert [(one.text, one.concept_id) for split in found.values() for one in split] == [("Big head", "X:1")]


def test_installed_sayings_are_laypersons_and_their_terms_apart() -> None:
    marked = set(re.findall(r'synonym: "(.*?)" EXACT layperson', installed_obo().read_text(encoding="utf-8")))
    rows = {split: list(layperson.Layperson().read(split)) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in rows.items()} == {"train": 3668, "val": 1233, "test": 1144}
    terms = {split: {row.fields["concept"] for row in found} for split, found in rows.items()}
    assert not terms["train"] & terms["test"]
    assert not terms["val"] & terms["test"]
    texts = [row.messages[0].content.removeprefix("What is the medical term for this?\n") for row in rows["test"]]
    assert sum(text in marked for text in texts) >= len(texts) - 5  # escaped characters


def test_a_brand_says_nothing_of_its_generic_name() -> None:
    assert brand.is_brand("coumadin", "warfarin")
    for name in ("warfilone", "coumadin 5", "war", "acétyl"):
        assert not brand.is_brand(name, "warfarin")
    names = {"coumadin": ["warfarin"], "marevan": ["warfarin"], "both": ["warfarin", "aspirin"], "other": ["unknown"]}
    assert brand.brands(names, {"warfarin", "aspirin"}) == [("coumadin", "warfarin"), ("marevan", "warfarin")]


def test_installed_brands_of_one_family_stay_together() -> None:
    if find_spec(brand.PACKAGE) is None:
        pytest.skip(brand.INSTALL)
    source = brand.Brand()
    rows = {split: list(source.read(split)) for split in ("train", "val", "test")}
    labels = set(source.tasks["brand"].choices)
    assert len(labels) == brand.DRUGS
    families = {split: {row.fields["family"] for row in found} for split, found in rows.items()}
    assert not families["train"] & families["test"]
    assert not families["val"] & families["test"]
    gold = Counter(row.messages[-1].content for found in rows.values() for row in found)
    assert set(gold) == labels
    assert {row.fields["label"] for row in rows["train"]} <= labels  # what the data card counts


def test_an_absent_dictionary_is_answered_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brand, "PACKAGE", "no_such_package")
    with pytest.raises(api.UserError, match="no_such_package") as caught:
        brand.dictionary_path()
    assert caught.value.fix == "pip install --no-deps drug-named-entity-recognition==2.0.9"
