"""JSONL in and out, and scispaCy's types in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from r1core_umls.cache import load_or_build
from r1core_umls.concepts import Terms
from r1core_umls.jsonl import JsonlSource, write_jsonl
from r1core_umls.knowledge import BuildReport, Concept, KnowledgeBase, Synonym

from r1core.api import UserError

OURS = {
    "id": "X:2",
    "name": "Fever",
    "synonyms": ["Pyrexia", {"text": "Hot body", "scope": "BROAD", "kind": "layperson"}],
    "cuis": ["C0015967"],
    "semantic_types": ["T184"],
    "definition": "Körpertemperatur 38 °C.",
    "parents": ["X:1"],
}
THEIRS = {
    "concept_id": "C0000002",
    "canonical_name": "Cold",
    "aliases": ["Common cold", "Cold"],
    "types": ["T047"],
    "definition": None,
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_both_forms_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.jsonl", OURS, THEIRS, "\n", {"id": "X:1", "name": "Finding"})
    base = KnowledgeBase.build(JsonlSource(file))
    assert base["X:2"] == Concept(
        "X:2",
        "Fever",
        (Synonym("Pyrexia"), Synonym("Hot body", "BROAD", "layperson")),
        ("C0015967",),
        ("T184",),
        "Körpertemperatur 38 °C.",
        ("X:1",),
    )
    assert base["C0000002"] == Concept(
        "C0000002", "Cold", (Synonym("Common cold"), Synonym("Cold")), ("C0000002",), ("T047",)
    )
    assert [concept.id for concept in base.lookup("common colds")] == ["C0000002"]
    assert base.descendants("X:1") == ("X:2",)
    assert (base.report.rows, base.report.kept, base.release, base.licence) == (3, 3, "not stated", "")
    assert base.lookup("hot body") == ()
    assert KnowledgeBase.build(JsonlSource(file, ("EXACT", "BROAD"))).lookup("hot body")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"id": "X:9"}', "`id` and `name` are needed"),
        ('{"id": "X:9", "name": " "}', "`id` and `name` are needed"),
        ('{"id": "X:9", "name": "A", "alias": []}', "unknown keys alias"),
        ('{"id": "X:9", "name": "A", "cuis": "C0000001"}', "`cuis` is not a list of texts"),
        ('{"id": "X:9", "name": "A", "synonyms": [3]}', "synonym 3 is neither"),
        ('{"id": "X:9", "name": "A", "synonyms": [{"text": "B", "scope": "CLOSE"}]}', "scope is one of EXACT"),
        ('{"id": "X:9", "name": "A", "definition": 3}', "`definition` is not a text"),
        ('{"id": "X:9", "name": "\\ud800"}', "text is not UTF-8"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, reason: str) -> None:
    base = KnowledgeBase.build(JsonlSource(write(tmp_path / "kb.jsonl", OURS, line + "\n", THEIRS)))
    assert len(base) == 2
    assert base.report.malformed == 1
    assert base.report.malformed_lines[0].startswith("kb.jsonl:2: ")
    assert reason in base.report.malformed_lines[0]


def test_filters(tmp_path: Path) -> None:
    file = write(tmp_path / "kb.jsonl", OURS, THEIRS)
    typed = KnowledgeBase.build(JsonlSource(file, semantic_types=("T047",)))
    assert [concept.id for concept in typed.concepts] == ["C0000002"]
    assert (typed.report.kept, typed.report.filtered) == (1, 1)
    kinds = KnowledgeBase.build(JsonlSource(file, ("EXACT", "BROAD"), vocabularies=("layperson",)))
    assert kinds.lookup("hot body")
    assert not kinds.lookup("pyrexia")
    sources = [JsonlSource(file), JsonlSource(file, vocabularies=("a",)), JsonlSource(file, semantic_types=("T047",))]
    assert len({source.fingerprint() for source in sources}) == 3
    with pytest.raises(UserError, match="none of 2 concepts passes"):
        KnowledgeBase.build(JsonlSource(file, semantic_types=("T999",)))


def test_what_is_no_knowledge_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as error:
        JsonlSource(tmp_path / "none.jsonl").size()
    assert '"synonyms"' in error.value.fix
    with pytest.raises(UserError, match=r"kb\.jsonl:1: not JSON .*2 more"):
        KnowledgeBase.build(JsonlSource(write(tmp_path / "kb.jsonl", "a,b\n", "c,d\n", "e,f\n")))
    with pytest.raises(UserError, match="X:2 comes twice"):
        KnowledgeBase.build(JsonlSource(write(tmp_path / "kb.jsonl", OURS, THEIRS, OURS)))


def test_hpo_survives_the_round_trip(hpo: KnowledgeBase, tmp_path: Path) -> None:
    write_jsonl(hpo, tmp_path / "hpo.jsonl")
    base = load_or_build(JsonlSource(tmp_path / "hpo.jsonl"))
    assert list(base.concepts) == list(hpo.concepts)
    assert (base.release, base.licence) == (hpo.release, "")
    assert base.surfaces(range(base.number_of_names)) == hpo.surfaces(range(hpo.number_of_names))


def test_a_licence_travels_with_the_file(base_of: Callable[..., KnowledgeBase], tmp_path: Path) -> None:
    store = base_of(Concept("X:1", "Fever")).store
    licensed = KnowledgeBase(store, "0", BuildReport("x"), Terms("2025AA", "Ask first."))
    write_jsonl(licensed, tmp_path / "kb.jsonl")
    base = KnowledgeBase.build(JsonlSource(tmp_path / "kb.jsonl"))
    assert (base.release, base.licence, len(base)) == ("2025AA", "Ask first.", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scispacy_types_there_and_back(small: KnowledgeBase) -> None:
    from r1core_umls.scispacy_types import from_scispacy, to_entity, to_scispacy

    theirs = to_scispacy(small)
    assert theirs.alias_to_cuis["ASD"] == {"X:1", "X:2"}
    entity = theirs.cui_to_entity["X:1"]
    assert (entity.canonical_name, entity.aliases, entity.types) == ("Atrial septal defect", ["ASD"], [])
    assert entity.definition is None
    assert to_entity(small["X:3"]).aliases == []
    assert to_entity(small["X:3"], ("EXACT", "RELATED")).aliases == ["Hole in the heart"]
    back = from_scispacy(theirs)
    assert [(c.id, c.name) for c in back.concepts] == [(c.id, c.name) for c in small.concepts]
    assert [concept.id for concept in back.lookup("ASD")] == ["X:1", "X:2"]
    defined = to_entity(Concept("C0000001", "Fever", semantic_types=("T184",), definition="Hot."))
    assert (defined.types, defined.definition) == (["T184"], "Hot.")
