"""The generated Metathesaurus, and the whole of the reader on it: counts, filters, Chinese names, verbs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from r1core_umls.cli import umls
from r1core_umls.fixture import write_release
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.linker import Linker
from r1core_umls.rrf import RrfSource

from r1core.api import UserError

CONCEPTS, NAMES = 300, 800


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("META")
    write_release(folder, concepts=CONCEPTS, names=NAMES, seed=3)
    return folder


@pytest.fixture(scope="module")
def base(meta: Path) -> KnowledgeBase:
    return KnowledgeBase.build(RrfSource(meta))


def table(meta: Path, name: str) -> list[list[str]]:
    return [line.split("|") for line in (meta / name).read_text("utf-8").split("\n")[:-1]]


def test_layout_and_order_are_those_of_a_release(meta: Path) -> None:
    widths = {"MRCONSO": 18, "MRSTY": 6, "MRREL": 16, "MRDEF": 8, "MRCUI": 7}  # columns, the final | left out
    for name, width in widths.items():
        rows = table(meta, f"{name}.RRF")
        assert {len(row) for row in rows} == {width + 1}
        assert {row[-1] for row in rows} == {""}
    conso = table(meta, "MRCONSO.RRF")
    assert [row[0] for row in conso] == sorted(row[0] for row in conso)
    assert sum(row[1] == "ENG" for row in conso) == NAMES
    assert len({row[0] for row in conso}) == CONCEPTS


def test_the_seed_decides_every_byte(meta: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    words = [
        "-m",
        "r1core_umls.fixture",
        str(tmp_path / "same"),
        f"--concepts={CONCEPTS}",
        f"--names={NAMES}",
        "--seed=3",
    ]
    subprocess.run([sys.executable, *words], check=True)
    assert digests(tmp_path / "same") == digests(meta)
    write_release(tmp_path / "other", concepts=CONCEPTS, names=NAMES, seed=4)
    assert digests(tmp_path / "other")["MRCONSO.RRF"] != digests(meta)["MRCONSO.RRF"]
    with pytest.raises(ValueError, match="expected 0 < concepts <= names"):
        write_release(tmp_path / "none", concepts=3, names=2)


def test_every_name_is_found_and_every_concept_is_whole(meta: Path, base: KnowledgeBase) -> None:
    names = defaultdict(list)
    for row in table(meta, "MRCONSO.RRF"):
        if row[1] == "ENG":
            names[row[0]].append(row[14])
    types = {row[0]: row[1] for row in table(meta, "MRSTY.RRF")}
    definitions = {row[0]: row[5] for row in table(meta, "MRDEF.RRF")}
    parents = defaultdict(set)
    for row in table(meta, "MRREL.RRF"):
        if row[3] == "PAR":
            parents[row[0]].add(row[4])
    assert [concept.id for concept in base.concepts] == sorted(names)
    for concept in base.concepts:
        assert concept.name == names[concept.id][0]
        assert {concept.name, *(s.text for s in concept.synonyms)} == set(names[concept.id])
        assert concept.semantic_types == (types[concept.id],)
        assert concept.definition == definitions.get(concept.id, "")
        assert concept.parents == tuple(sorted(parents[concept.id]))
        assert all(concept in base.lookup(name) for name in names[concept.id])
    assert base.report.kept == NAMES
    assert base.number_of_names == sum(len(set(found)) for found in names.values())


def test_chinese_names_link_inside_a_sentence(meta: Path) -> None:
    chinese = KnowledgeBase.build(RrfSource(meta, ("CHI",)))
    rows = [row for row in table(meta, "MRCONSO.RRF") if row[1] == "CHI"]
    assert len(chinese) == len(rows) == CONCEPTS // 10
    for row in rows:
        (found,) = Linker(chinese).link(f"患者于三天前出现{row[14]}，伴有咳嗽。")
        assert (found.value.concept_id, found.value.matched) == (row[0], row[14])
    both = KnowledgeBase.build(RrfSource(meta, ("ENG", "CHI")))
    assert both.report.kept == NAMES + len(rows)
    assert both.lookup(rows[0][14])[0].name == both[rows[0][0]].name != rows[0][14]


def test_semantic_types_filter_concepts(meta: Path) -> None:
    wanted = {row[0] for row in table(meta, "MRSTY.RRF") if row[1] in ("T047", "T184")}
    typed = KnowledgeBase.build(RrfSource(meta, semantic_types=("T047", "T184")))
    assert {concept.id for concept in typed.concepts} == wanted
    assert 0 < len(wanted) < CONCEPTS
    above: dict[str, set[str]] = defaultdict(set)
    for row in table(meta, "MRREL.RRF"):
        if row[3] == "PAR":
            above[row[0]].add(row[4])
    for concept in typed.concepts:  # parents have smaller numbers, so the closure grows in order
        above[concept.id] |= set()
    for cui in sorted(above):
        above[cui] |= {ancestor for parent in above[cui] for ancestor in above[parent]}
    assert {c.id: set(typed.ancestors(c)) for c in typed.concepts} == {cui: above[cui] & wanted for cui in wanted}
    assert typed.report.rows == typed.report.kept + typed.report.filtered
    with pytest.raises(UserError, match="'Disease' is not a TUI"):
        KnowledgeBase.build(RrfSource(meta, semantic_types=("Disease",)))
    with pytest.raises(UserError, match=r"semantic_types=\['T999'\]"):
        KnowledgeBase.build(RrfSource(meta, semantic_types=("T999",)))


def test_release_licence_and_absent_files(meta: Path, base: KnowledgeBase, tmp_path: Path) -> None:
    assert base.release == "FIXTURE"
    assert "release FIXTURE: licensed data" in base.licence
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        (tmp_path / name).write_bytes((meta / name).read_bytes())
    bare = KnowledgeBase.build(RrfSource(tmp_path))
    assert bare.release == "not stated"
    assert bare.licence
    assert [note.split(" is absent: ")[0] for note in bare.report.notes] == ["MRREL.RRF", "MRDEF.RRF", "MRCUI.RRF"]
    (tmp_path / "MRDOC.RRF").write_text(
        "REL|PAR|expanded_form|has parent|\nRELEASE|umls.release.name|release_info|2024AB|\n"
    )
    assert RrfSource(tmp_path).terms().release == "2024AB"
    assert RrfSource(tmp_path).fingerprint() != bare.fingerprint()


def test_columns_that_mrfiles_lists_otherwise_are_refused(meta: Path, tmp_path: Path) -> None:
    for path in meta.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    described = (meta / "MRFILES.RRF").read_text().replace("CUI,TUI,STN", "CUI,STN,TUI")
    (tmp_path / "MRFILES.RRF").write_text(described)
    with pytest.raises(UserError, match=r"MRSTY\.RRF has the columns CUI,STN,TUI"):
        KnowledgeBase.build(RrfSource(tmp_path))


def test_a_concept_whose_rows_lie_apart_is_refused(meta: Path, tmp_path: Path) -> None:
    lines = (meta / "MRCONSO.RRF").read_text("utf-8").splitlines(keepends=True)
    second = next(place for place, line in enumerate(lines) if line[:8] != lines[0][:8])
    (tmp_path / "MRCONSO.RRF").write_text("".join([*lines[1:second], *lines[second:], lines[0]]), "utf-8")
    (tmp_path / "MRSTY.RRF").write_bytes((meta / "MRSTY.RRF").read_bytes())
    with pytest.raises(UserError, match="comes twice") as error:
        KnowledgeBase.build(RrfSource(tmp_path))
    assert "sort" in error.value.fix


def test_verbs_over_the_fixture(
    meta: Path, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))

    def told(*words: str) -> dict[str, object]:
        shown = CliRunner().invoke(umls, [*words, "--json"])
        assert shown.exit_code == 0, shown.output
        return dict(json.loads(shown.output))

    built, stats = told("build", str(meta)), told("kb", str(meta), "--verify")
    assert (stats["concepts"], stats["names"], stats["is_a"]) == (CONCEPTS, base.number_of_names, base.report.parents)
    assert (stats["release"], stats["licence"], stats["verified"]) == ("FIXTURE", base.licence, True)
    assert stats["fingerprint"] == built["fingerprint"] == base.fingerprint()
    root = "C0000001"
    below = told("descendants", root, "--base", str(meta))
    assert [row["id"] for row in below["descendants"]] == list(base.descendants(root))  # type: ignore[union-attr,index,attr-defined]
    assert (below["id"], below["licence"], below["fingerprint"]) == (root, base.licence, base.fingerprint())
    above = told("ancestors", base.descendants(root)[-1], "--base", str(meta))
    assert root in [row["id"] for row in above["ancestors"]]  # type: ignore[union-attr,index,attr-defined]
    merged = next(row[0] for row in table(meta, "MRCUI.RRF") if row[2] == "SY" and row[5] < "C9")
    assert told("descendants", merged, "--base", str(meta))["replaces"] == merged
    deleted = CliRunner().invoke(umls, ["descendants", "C9999999", "--base", str(meta)])
    assert isinstance(deleted.exception, UserError)
    assert "C9999999 is not in" in str(deleted.exception)
