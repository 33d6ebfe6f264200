"""The spaCy component, as a user of scispaCy's linker would use it."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from r1core_umls.plugin import UmlsConfig, UmlsPlugin

from r1core import api

ROOT = Path(__file__).parents[1]
TEXT = "No atrial septal defect (ASD). Her mother had Gout in Boston."


def pipeline(**config: object):  # type: ignore[no-untyped-def]
    import spacy

    # What spaCy does for an installed distribution: load the entry point that the metadata names.
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["spacy_factories"]
    for name, value in stated.items():
        EntryPoint(name, value, "spacy_factories").load()
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": "Boston"}])  # type: ignore[attr-defined]
    nlp.add_pipe("r1core_umls", config=config)
    return nlp


def test_entities_carry_concepts_as_those_of_scispacy(cache: Path) -> None:
    doc = pipeline()(TEXT)
    assert [(ent.text, ent.kb_id_, ent.label_) for ent in doc.ents] == [
        ("atrial septal defect", "HP:0001631", "ENTITY"),
        ("ASD", "HP:0001631", "ENTITY"),
        ("Gout", "HP:0001997", "ENTITY"),
        ("Boston", "", "GPE"),
    ]
    assert doc.ents[0]._.kb_ents[0] == ("HP:0001631", 1.0)
    assert doc.ents[3]._.kb_ents == []
    assert (doc.ents[0]._.concept.negated, doc.ents[2]._.concept.family) == (True, True)


def test_a_span_group_leaves_the_entities_alone(cache: Path) -> None:
    docs = list(pipeline(spans_key="concepts", label="HPO").pipe([TEXT, "Nothing."]))
    assert [span.kb_id_ for span in docs[0].spans["concepts"]] == ["HP:0001631", "HP:0001631", "HP:0001997"]
    assert [ent.text for ent in docs[0].ents] == ["Boston"]
    assert list(docs[1].spans["concepts"]) == []


def test_it_survives_the_disk_and_refuses_another_base(cache: Path, tmp_path: Path) -> None:
    import spacy

    file = tmp_path / "own.jsonl"
    file.write_text('{"id": "OWN:1", "name": "Ward fever"}\n')
    nlp = pipeline(source="jsonl", file=str(file))
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert [ent.kb_id_ for ent in again("A ward fever").ents] == ["OWN:1"]
    assert [
        ent.kb_id_ for ent in pipeline(source="jsonl", file=str(file)).from_bytes(nlp.to_bytes())("ward fever").ents
    ]
    file.write_text('{"id": "OWN:2", "name": "Ward fever"}\n')
    with pytest.raises(api.UserError, match="not the one that the pipeline was saved with"):
        spacy.load(tmp_path / "saved")


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="MRCONSO"):
        pipeline(source="rrf")


def test_a_licence_is_told_before_the_run_and_in_its_report(tmp_path: Path) -> None:
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        (tmp_path / name).write_text("")
    (tmp_path / "release.dat").write_text("umls.release.name=2025AA\n")
    licensed = UmlsConfig(source="rrf", directory=tmp_path)
    plan = api.Plan({}, {"plugins.umls.layer": "recipe.toml:4"})
    (problem,) = UmlsPlugin().validate(api.Context("", licensed, 0), plan)
    assert (problem.severity, problem.where) == ("warning", "recipe.toml:4")
    assert "needs a UMLS licence" in problem.expected
    assert UmlsPlugin().validate(api.Context("", licensed.model_copy(update={"layer": False}), 0), plan) == []
    view = api.RunView(tmp_path, {}, [])
    (section,) = UmlsPlugin().report(api.Context("", licensed, 0), view)
    assert not section.private
    assert "adapter" in section.text
    assert ("release", "2025AA") in section.tables[0].rows
    (free,) = UmlsPlugin().report(api.Context("", UmlsConfig(), 0), view)
    assert ("licence", "none") in free.tables[0].rows
    assert free.text == ""
