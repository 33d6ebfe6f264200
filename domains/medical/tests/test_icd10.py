"""The data set against an independent reading of the same file, and its promises of uniqueness and stability."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from r1core_medical import icd10
from r1core_medical.icd10 import Icd10Specialty

from r1core import api

SPLITS = ("train", "val", "test")
CARD = Path(icd10.__file__).parent / "data" / "card.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[api.Example]]:
    source = Icd10Specialty()
    return {split: list(source.read(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def everything(rows: dict[str, list[api.Example]]) -> list[api.Example]:
    return [row for split in SPLITS for row in rows[split]]


def plain(term: str) -> str:
    """The comparison of terms, spelled out without the module's own code."""
    return repr("".join(c if c.isalnum() else " " for c in term.casefold()).split())


def test_counts(rows: dict[str, list[api.Example]]) -> None:
    assert {split: len(rows[split]) for split in SPLITS} == {"train": 8387, "val": 1159, "test": 1819}
    labels = {row.fields["label"] for row in rows["train"]}
    assert labels == {row.fields["label"] for row in rows["val"]} == {row.fields["label"] for row in rows["test"]}
    assert labels == set(Icd10Specialty.tasks["icd10_specialty"].choices)
    assert len(labels) == 20


def test_the_card_states_the_counts(rows: dict[str, list[api.Example]]) -> None:
    counted = {split: Counter(str(row.fields["chapter"]) for row in rows[split]) for split in SPLITS}
    card = CARD.read_text(encoding="utf-8")
    stated = re.findall(r"^\| (\d+) \| \w+ \| .*? \| .*? \| (\d+) \| (\d+) \| (\d+) \|$", card, re.MULTILINE)
    assert {(chapter, *(str(counted[s][chapter]) for s in SPLITS)) for chapter in counted["train"]} == set(stated)


def test_an_element_tree_reading_finds_the_same_terms(everything: list[api.Example]) -> None:
    root = ElementTree.parse(icd10.xml_path()).getroot()
    found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for chapter in root.findall("chapter"):
        for entry in chapter.iter("diag"):
            code = str(entry.findtext("name"))
            for note in entry.findall("inclusionTerm/note"):
                term = re.sub(r"\s+", " ", re.sub(r",? *\bNOS\b", "", str(note.text))).strip()
                found[plain(term)].append((int(str(chapter.findtext("name"))), code, term))
    expected = set()
    for same in found.values():
        chapter_number, code, term = same[0]
        if len({other[:3] for _, other, _ in same}) == 1 and chapter_number not in (20, 22):
            expected.add((chapter_number, code, term))
    assert {(row.fields["chapter"], row.fields["code"], row.fields["term"]) for row in everything} == expected


def test_no_category_and_no_term_is_in_two_splits(rows: dict[str, list[api.Example]]) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not {r.fields["category"] for r in rows[first]} & {r.fields["category"] for r in rows[second]}
        assert not {plain(r.fields["term"]) for r in rows[first]} & {plain(r.fields["term"]) for r in rows[second]}


def test_every_term_and_every_id_occurs_once(everything: list[api.Example]) -> None:
    assert max(Counter(row.id for row in everything).values()) == 1
    assert max(Counter(plain(row.fields["term"]) for row in everything).values()) == 1
    assert all(row.fields["category"] == row.fields["code"][:3] for row in everything)


def test_the_split_is_the_published_hash(rows: dict[str, list[api.Example]]) -> None:
    for split, (low, high) in {"train": (0, 0.75), "val": (0.75, 0.85), "test": (0.85, 1)}.items():
        for row in rows[split]:
            position = int(hashlib.sha256(row.fields["category"].encode()).hexdigest()[:16], 16) / 16**16
            assert low <= position < high


@pytest.mark.parametrize(
    ("code", "term", "label"),
    [
        ("A38.9", "Scarlet fever", "Infection"),
        ("D56.1", "Thalassemia major", "Blood"),
        ("F43.2", "Culture shock", "Mental"),
        ("G50.0", "Tic douloureux", "Nerve"),
        ("Q13.4", "Microcornea", "Congenital"),
        ("I1A.0", "Apparent treatment resistant hypertension", "Heart"),
        ("B07.0", "Verruca plantaris", "Infection"),
        ("N89.5", "Vaginal stenosis", "Urology"),
        ("R73.01", "Elevated fasting glucose", "Symptoms"),
        ("Z89.12", "Disarticulation at wrist", "Services"),
    ],
)
def test_codes_checked_by_hand(everything: list[api.Example], code: str, term: str, label: str) -> None:
    (row,) = [row for row in everything if row.fields["term"] == term]
    assert (row.fields["code"], row.fields["label"]) == (code, label)
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", f"Which specialty treats this diagnosis?\n{term}"),
        ("assistant", label),
    ]
    assert row.id.startswith(f"icd10/{code}/")


def test_no_qualifier_and_no_blank_is_left(everything: list[api.Example]) -> None:
    for row in everything:
        assert not re.search(r"\bNOS\b|\s\s|^\s|\s$|^$", row.fields["term"])


def test_another_process_gets_the_same_rows_and_fingerprint(everything: list[api.Example]) -> None:
    program = (
        "import hashlib; from r1core_medical.icd10 import Icd10Specialty as S; s = S();"
        "rows = [(r.id, r.messages[0].content) for k in ('train', 'val', 'test') for r in s.read(k)];"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest(), s.fingerprint())"
    )
    mine = hashlib.sha256(repr([(r.id, r.messages[0].content) for r in everything]).encode()).hexdigest()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [mine, Icd10Specialty().fingerprint()]


def test_reading_does_not_import_the_package() -> None:
    program = (
        "import sys; from r1core_medical.domain import MEDICAL; next(MEDICAL.sources[0].read('val'));"
        "sys.exit('simple_icd_10_cm' in sys.modules or 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_an_absent_package_is_answered_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icd10, "PACKAGE", "no_such_package")
    with pytest.raises(api.UserError, match="no_such_package") as caught:
        icd10.xml_path()
    assert caught.value.fix == "pip install simple-icd-10-cm==1.5.0"


def test_broken_xml_is_named_with_its_line() -> None:
    with pytest.raises(api.UserError, match=r"list\.xml: broken XML: .*line 2"):
        icd10.parse_terms(b"<chapter>\n<diag></chapter>", "list.xml")


def test_ambiguous_terms_are_dropped_and_repeated_ones_kept_once() -> None:
    term = icd10.InclusionTerm
    kept = icd10.select(
        [
            term(1, "A01.1", 0, "Fever, NOS"),
            term(1, "A01.2", 0, "FEVER"),  # the same, in the same category
            term(2, "C01.1", 0, "Lump"),
            term(3, "D50.1", 0, "lump NOS"),  # another chapter
            term(4, "E01.1", 0, "Goiter"),
            term(4, "E02.1", 0, "goiter."),  # another category
            term(5, "F01.1", 0, "Fall"),
            term(20, "W01.1", 0, "fall"),  # a chapter without a label
            term(20, "W02.1", 0, "Slip"),
        ]
    )
    assert kept == [term(1, "A01.1", 0, "Fever")]
