"""Hierarchy and retired identifiers against naive walks, from every source."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls.concepts import Retirement
from r1core_umls.hpo import installed_obo
from r1core_umls.jsonl import JsonlSource
from r1core_umls.knowledge import Concept, KnowledgeBase
from r1core_umls.relations import Replacement, Retired
from r1core_umls.rrf import RrfSource
from r1core_umls.writer import StoreWriter


def reach(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Everything that can be reached by one edge or more, the start left out."""
    reached: set[str] = set()
    while True:
        grown = reached | {target for node in {start, *reached} for target in edges.get(node, set())}
        if grown == reached:
            return reached - {start}
        reached = grown


NODES = [f"X:{number}" for number in range(9)]
PAIRS = st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from([*NODES, "X:unknown"])), max_size=25)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.permutations(NODES))
def test_walks_equal_a_naive_closure_cycles_included(pairs: list[tuple[str, str]], arrival: list[str]) -> None:
    up: dict[str, set[str]] = {}
    down: dict[str, set[str]] = {}
    for child, parent in pairs:
        if parent in NODES:
            up.setdefault(child, set()).add(parent)
            down.setdefault(parent, set()).add(child)
    base = KnowledgeBase.of(Concept(n, n, parents=tuple(p for c, p in pairs if c == n)) for n in arrival)
    for node in NODES:
        assert base.ancestors(node) == tuple(sorted(reach(node, up)))
        assert base.descendants(base[node]) == tuple(sorted(reach(node, down)))
        assert base[node].parents == tuple(sorted(up.get(node, set()) - {node}))
        position = base.position(node)
        assert [base.concepts[c].id for c in base.hierarchy.children(position)] == sorted(
            down.get(node, set()) - {node}
        )
    with pytest.raises(KeyError):
        base.ancestors("X:unknown")


@pytest.mark.parametrize("seed", range(30))
def test_a_filter_changes_nothing_between_those_that_stay(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    edges: dict[str, set[str]] = {}
    for _ in range(14):  # dense enough for paths over several concepts, and for cycles among those left out
        edges.setdefault(random.choice(NODES), set()).add(random.choice([*NODES, "X:unknown"]))
    kept = set(random.sample(NODES, 4))
    file = tmp_path / "kb.jsonl"
    rows = [
        {"id": n, "name": n, "semantic_types": ["T001" if n in kept else "T002"], "parents": sorted(edges.get(n, []))}
        for n in NODES
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = KnowledgeBase.build(JsonlSource(file, semantic_types=("T001",)))
    for node in sorted(kept):
        assert base.ancestors(node) == tuple(sorted(reach(node, edges) & kept))


def test_hpo_hierarchy_equals_an_independent_reading(hpo: KnowledgeBase) -> None:
    down: dict[str, set[str]] = {}
    for stanza in installed_obo().read_text("utf-8").split("\n\n"):
        child = re.search(r"^id: (HP:\d+)$", stanza, re.M)
        if child and "is_obsolete: true" not in stanza:
            for parent in re.findall(r"^is_a: (HP:\d+)", stanza, re.M):
                down.setdefault(parent, set()).add(child[1])
    for concept_id in ("HP:0000118", "HP:0001631", "HP:0000707", "HP:0000003"):
        assert hpo.descendants(concept_id) == tuple(sorted(reach(concept_id, down)))
    assert len(hpo.descendants("HP:0000118")) > 15_000
    assert hpo["HP:0001631"].id in hpo.descendants("HP:0000118")
    kept = sum(len(children) for parent, children in down.items() if parent != "HP:0000001")
    assert (hpo.report.parents, hpo.report.parents_unknown) == (kept, len(down["HP:0000001"]))


def test_hpo_definitions_release_and_retired_ids(hpo: KnowledgeBase) -> None:
    text = installed_obo().read_text("utf-8")
    defined = sum("\ndef: " in s and "\nis_obsolete" not in s for s in text.split("\n\n") if s.startswith("[Term]"))
    assert sum(bool(concept.definition) for concept in hpo.concepts) == defined > 15_000
    assert hpo["HP:0000003"].definition.startswith("Multicystic dysplasia of the kidney is characterized by")
    assert f"\ndata-version: {hpo.release}\n" in text
    assert hpo.licence == ""
    alternative = re.search(r"^id: (HP:\d+)\n(?:(?!\n\n).)*?^alt_id: (HP:\d+)$", text, re.M | re.S)
    assert alternative is not None
    owner = re.findall(r"^id: (HP:\d+)$", text[: alternative.end()], re.M)[-1]
    assert hpo.replacements(alternative[2]) == (Replacement(owner, "SY"),)
    assert hpo.replacements(owner) == ()


def retired(*rows: tuple[str, str, str]) -> Retired:
    writer = StoreWriter(("EXACT",))
    for row in rows:
        writer.retire(Retirement(*row))
    return Retired(writer.finish())


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([("A", "SY", "B")], [("B", "SY")]),
        ([("A", "SY", "B"), ("B", "SY", "C"), ("C", "SY", "D")], [("D", "SY")]),
        ([("A", "SY", "B"), ("B", "RB", "C")], [("C", "RB")]),
        ([("A", "RB", "B"), ("B", "RB", "C")], [("C", "RB")]),
        ([("A", "RB", "B"), ("B", "RN", "C")], [("C", "RO")]),
        ([("A", "RN", "B"), ("B", "SY", "C")], [("C", "RN")]),
        ([("A", "RO", "C"), ("A", "SY", "B"), ("A", "RB", "D")], [("B", "SY"), ("D", "RB"), ("C", "RO")]),
        ([("A", "RO", "C"), ("A", "SY", "B"), ("B", "SY", "C")], [("C", "SY")]),
        ([("A", "DEL", "")], [("", "DEL")]),
        ([("A", "SY", "B"), ("B", "DEL", "")], [("", "DEL")]),
        ([("A", "SUBX", "")], [("", "SUBX")]),
        ([("A", "SY", "B"), ("B", "SY", "A")], [("", "DEL")]),
        ([("A", "RO", "B"), ("A", "RO", "C"), ("B", "DEL", "")], [("C", "RO")]),
        ([("B", "SY", "C")], []),
    ],
)
def test_retired_identifiers_are_followed_to_the_end(
    rows: list[tuple[str, str, str]], found: list[tuple[str, str]]
) -> None:
    assert [(r.id, r.relation) for r in retired(*rows).follow("A")] == found


STEPS = st.lists(st.tuples(st.sampled_from("ABCDEF"), st.sampled_from("ABCDEFGH")), max_size=12)


@settings(deadline=None)
@given(STEPS)
def test_every_end_of_a_chain_is_found(steps: list[tuple[str, str]]) -> None:
    table = retired(*((old, "SY", new) for old, new in steps))
    edges: dict[str, set[str]] = {}
    for old, new in steps:
        edges.setdefault(old, set()).add(new)
    for start in "ABCDEF":
        ends = {node for node in reach(start, edges) if node not in edges}
        expected = sorted(ends) or ([""] if start in edges else [])
        assert [replacement.id for replacement in table.follow(start)] == expected


def relation(one: str, rel: str, two: str, rela: str = "", sab: str = "MSH", suppress: str = "N") -> str:
    """One row of MRREL.RRF, written out in the manual's order: `two` is the `rel` of `one`."""
    return f"{one}|A1|AUI|{rel}|{two}|A2|AUI|{rela}|R1||{sab}|{sab}||N|{suppress}|256|\n"


CUIS = [f"C000000{number}" for number in range(1, 8)]


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    conso = "".join(f"{c}|ENG|P|L|PF|S|Y|A||M|D|MSH|MH|D|Name {c}|0|N|256|\n" for c in CUIS)
    (tmp_path / "MRCONSO.RRF").write_text(conso)
    (tmp_path / "MRSTY.RRF").write_text("".join(f"{c}|T047|A1|Disease|AT|256|\n" for c in CUIS))
    one, two, three, four, five, six, seven = CUIS
    (tmp_path / "MRREL.RRF").write_text(
        relation(two, "PAR", one, "inverse_isa")
        + relation(one, "CHD", two, "isa")  # the same pair, the other way
        + relation(two, "CHD", three)
        + relation(four, "RB", two, "inverse_isa", sab="SNOMEDCT_US")
        + relation(two, "RN", five)  # narrower, but not called a kind of it
        + relation(six, "PAR", one, suppress="O")
        + relation(one, "PAR", one)
        + relation(seven, "SIB", one)
        + relation(seven, "RO", one, "isa")
        + relation(seven, "PAR", "C9999999")
        + relation("broken", "PAR", one)
        + "too|few|columns|\n"
    )
    (tmp_path / "MRCUI.RRF").write_text(
        f"C8000001|2019AA|SY|||C8000002|N|\nC8000002|2020AA|RB|||{one}|Y|\nC8000003|2020AA|DEL|||||\n"
        f"C8000004|2020AA|XX|||{one}|Y|\n"
    )
    (tmp_path / "MRDEF.RRF").write_text(
        f"{one}|A|AT||NCI|Hidden.|O|256|\n{one}|A|AT||NCI|First définition.|N|256|\n{one}|A|AT||MSH|Second.|N|256|\n"
    )
    return tmp_path


def test_directions_of_mrrel(meta: Path) -> None:
    base = KnowledgeBase.build(RrfSource(meta))
    one, two, three, four, *_ = CUIS
    assert base.descendants(one) == (two, three, four)
    assert base.ancestors(four) == (one, two)
    assert base[two].parents == (one,)
    assert (base.report.parents, base.report.parents_unknown) == (3, 1)


@pytest.mark.parametrize(
    ("filters", "below_two"),
    [
        ({"broader": True}, CUIS[2:5]),
        ({"vocabularies": ("MSH",)}, CUIS[2:3]),
        ({"suppressed": True}, CUIS[2:4]),
    ],
)
def test_filters_hold_for_relations(meta: Path, filters: dict[str, bool], below_two: list[str]) -> None:
    base = KnowledgeBase.build(RrfSource(meta, **filters))  # type: ignore[arg-type]
    assert base.descendants(CUIS[1]) == tuple(below_two)
    assert (CUIS[5] in base.descendants(CUIS[0])) == ("suppressed" in filters)


def test_mrcui_is_followed_and_its_relation_told(meta: Path) -> None:
    base = KnowledgeBase.build(RrfSource(meta))
    assert base.replacements("C8000001") == (Replacement(CUIS[0], "RB"),)
    assert base.replacements("C8000003") == (Replacement("", "DEL"),)
    assert base.replacements(CUIS[0]) == base.replacements("C8000009") == ()


def test_definitions_are_the_first_that_passes(meta: Path) -> None:
    assert KnowledgeBase.build(RrfSource(meta))[CUIS[0]].definition == "First définition."
    assert KnowledgeBase.build(RrfSource(meta, vocabularies=("MSH",)))[CUIS[0]].definition == "Second."
    assert KnowledgeBase.build(RrfSource(meta))[CUIS[1]].definition == ""


def test_malformed_rows_of_every_table_are_counted(meta: Path) -> None:
    report = KnowledgeBase.build(RrfSource(meta)).report
    assert report.malformed == 3
    assert [line.partition(": ")[0] for line in report.malformed_lines] == [
        "MRREL.RRF:11",
        "MRREL.RRF:12",
        "MRCUI.RRF:4",
    ]
    assert report.notes == ()
