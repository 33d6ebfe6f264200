"""The data sets against an independent reading of the same file, and their promises of uniqueness and stability."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from r1core_medical import icd10, tabular
from r1core_medical.icd10 import Icd10Specialty
from r1core_medical.tabular import Term

from r1core import api

SPLITS = ("train", "val", "test")
CARD = Path(icd10.__file__).parent / "data" / "card.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[api.Example]]:
    source = Icd10Specialty()
    return {split: list(source.read(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def titled() -> dict[str, list[api.Example]]:
    source = Icd10Specialty(titles=True)
    return {split: list(source.read(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def terms(rows: dict[str, list[api.Example]]) -> list[api.Example]:
    return [row for split in SPLITS for row in rows[split]]


@pytest.fixture(scope="module")
def everything(titled: dict[str, list[api.Example]]) -> list[api.Example]:
    """Every row of the data set with titles, which holds those of the other."""
    return [row for split in SPLITS for row in titled[split]]


@pytest.fixture(scope="module")
def tree() -> ElementTree.Element:
    return ElementTree.parse(tabular.xml_path()).getroot()


def plain(term: str) -> str:
    """The comparison of terms, spelled out without the module's own code."""
    return repr("".join(c if c.isalnum() else " " for c in term.casefold()).split())


def shown(text: str | None) -> str:
    """A text of the list without the qualifier NOS, spelled out without the module's own code."""
    return re.sub(r"\s+", " ", re.sub(r",? *\bNOS\b", "", str(text))).strip()


def position(category: str) -> float:
    """Where the published hash puts a category, in [0, 1)."""
    return int(hashlib.sha256(category.encode()).hexdigest()[:16], 16) / 16**16


def test_counts(rows: dict[str, list[api.Example]], titled: dict[str, list[api.Example]]) -> None:
    assert {split: len(rows[split]) for split in SPLITS} == {"train": 8387, "val": 1159, "test": 1819}
    assert {split: len(titled[split]) for split in SPLITS} == {"train": 9563, "val": 1159, "test": 1819}
    labels = {row.fields["label"] for row in rows["train"]}
    assert labels == {row.fields["label"] for row in rows["val"]} == {row.fields["label"] for row in rows["test"]}
    assert labels == set(Icd10Specialty.tasks["icd10_specialty"].choices)
    assert len(labels) == 20


def test_titles_change_nothing_but_train(
    rows: dict[str, list[api.Example]], titled: dict[str, list[api.Example]]
) -> None:
    name = "medical/icd10_specialty"
    assert {row.source for split in SPLITS for row in rows[split]} == {name}
    assert {row.source for split in SPLITS for row in titled[split]} == {f"{name}_titles"}
    same = {split: [replace(row, source=name) for row in titled[split]] for split in SPLITS}
    assert same["val"] == rows["val"]
    assert same["test"] == rows["test"]
    added = same["train"][len(rows["train"]) :]
    assert same["train"] == rows["train"] + added
    assert all(row.id == f"icd10/{row.fields['code']}/title" for row in added)
    assert Icd10Specialty().fingerprint() != Icd10Specialty(titles=True).fingerprint()


def test_the_card_states_the_counts(rows: dict[str, list[api.Example]], titled: dict[str, list[api.Example]]) -> None:
    card = CARD.read_text(encoding="utf-8")
    columns = (rows["train"], titled["train"], rows["val"], rows["test"])
    chapters = [Counter(row.fields["chapter"] for row in column) for column in columns]
    expected = [
        (str(chapter), label, *(str(counted[chapter]) for counted in chapters))
        for chapter, label in icd10.LABELS.items()
    ]
    numbers = r" (\d+) \| (\d+) \| (\d+) \| (\d+) \|$"
    assert re.findall(rf"^\| (\d+) \| (\w+) \| .*? \| .*? \|{numbers}", card, re.MULTILINE) == expected
    sums = {name: found for name, *found in re.findall(rf"\*\*(\w+)\*\* \|{numbers}", card, re.MULTILINE)}
    assert sums["all"] == [str(len(column)) for column in columns]
    assert sums["categories"] == [str(len({row.fields["category"] for row in column})) for column in columns]


def test_an_element_tree_reading_finds_the_same_terms(terms: list[api.Example], tree: ElementTree.Element) -> None:
    found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for chapter in tree.findall("chapter"):
        for entry in chapter.iter("diag"):
            code = str(entry.findtext("name"))
            for note in entry.findall("inclusionTerm/note"):
                term = shown(note.text)
                found[plain(term)].append((int(str(chapter.findtext("name"))), code, term))
    expected = set()
    for same in found.values():
        chapter_number, code, term = same[0]
        if len({other[:3] for _, other, _ in same}) == 1 and chapter_number not in (20, 22):
            expected.add((chapter_number, code, term))
    assert {(row.fields["chapter"], row.fields["code"], row.fields["term"]) for row in terms} == expected


def test_an_element_tree_reading_finds_the_same_titles(
    titled: dict[str, list[api.Example]], tree: ElementTree.Element
) -> None:
    taken = {plain(shown(note.text)) for note in tree.findall(".//inclusionTerm/note")}
    found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for chapter in tree.findall("chapter"):
        for entry in chapter.findall("section/diag"):
            title = shown(entry.findtext("desc"))
            row = (int(str(chapter.findtext("name"))), str(entry.findtext("name")), title)
            found[plain(title)].append(row)
    expected = [
        same[0]
        for form, same in found.items()
        if form not in taken and len(same) == 1 and same[0][0] not in (20, 22) and position(same[0][1]) < 0.75
    ]
    added = [row for row in titled["train"] if row.id.endswith("/title")]
    assert [(row.fields["chapter"], row.fields["code"], row.fields["term"]) for row in added] == expected


def test_no_category_and_no_term_is_in_two_splits(titled: dict[str, list[api.Example]]) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not {r.fields["category"] for r in titled[first]} & {r.fields["category"] for r in titled[second]}
        assert not {plain(r.fields["term"]) for r in titled[first]} & {plain(r.fields["term"]) for r in titled[second]}


def test_every_term_and_every_id_occurs_once(everything: list[api.Example]) -> None:
    assert max(Counter(row.id for row in everything).values()) == 1
    assert max(Counter(plain(row.fields["term"]) for row in everything).values()) == 1
    assert all(row.fields["category"] == row.fields["code"][:3] for row in everything)


def test_the_split_is_the_published_hash(titled: dict[str, list[api.Example]]) -> None:
    for split, (low, high) in {"train": (0, 0.75), "val": (0.75, 0.85), "test": (0.85, 1)}.items():
        assert all(low <= position(row.fields["category"]) < high for row in titled[split])


@pytest.mark.parametrize(
    ("code", "term", "label"),
    [
        ("A38.9", "Scarlet fever", "infection"),
        ("D56.1", "Thalassemia major", "blood"),
        ("F43.2", "Culture shock", "mental"),
        ("G50.0", "Tic douloureux", "brain"),
        ("Q13.4", "Microcornea", "congenital"),
        ("I1A.0", "Apparent treatment resistant hypertension", "heart"),
        ("B07.0", "Verruca plantaris", "infection"),
        ("N89.5", "Vaginal stenosis", "urinary"),
        ("R73.01", "Elevated fasting glucose", "symptoms"),
        ("Z89.12", "Disarticulation at wrist", "services"),
        ("A02", "Other salmonella infections", "infection"),
        ("N04", "Nephrotic syndrome", "urinary"),
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


@pytest.mark.parametrize("titles", [False, True])
def test_another_process_gets_the_same_rows_and_fingerprint(titles: bool) -> None:
    program = (
        f"import hashlib; from r1core_medical.icd10 import Icd10Specialty as S; s = S(titles={titles});"
        "rows = [(r.id, r.messages[0].content) for k in ('train', 'val', 'test') for r in s.read(k)];"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest(), s.fingerprint())"
    )
    source = Icd10Specialty(titles=titles)
    rows = [(row.id, row.messages[0].content) for split in SPLITS for row in source.read(split)]
    mine = hashlib.sha256(repr(rows).encode()).hexdigest()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [mine, source.fingerprint()]


def test_reading_does_not_import_the_package() -> None:
    program = (
        "import sys; from r1core_medical.domain import MEDICAL; next(MEDICAL.sources[0].read('val'));"
        "sys.exit('simple_icd_10_cm' in sys.modules or 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_an_absent_package_is_answered_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "PACKAGE", "no_such_package")
    with pytest.raises(api.UserError, match="no_such_package") as caught:
        tabular.xml_path()
    assert caught.value.fix == "pip install simple-icd-10-cm==1.5.0"


def test_broken_xml_is_named_with_its_line() -> None:
    with pytest.raises(api.UserError, match=r"list\.xml: broken XML: .*line 2"):
        tabular.parse(b"<chapter>\n<diag></chapter>", "list.xml")


def test_ambiguous_terms_are_dropped_and_repeated_ones_kept_once() -> None:
    kept = icd10.select(
        [
            Term(1, "A01.1", 0, "Fever, NOS"),
            Term(1, "A01.2", 0, "FEVER"),  # the same, in the same category
            Term(2, "C01.1", 0, "Lump"),
            Term(3, "D50.1", 0, "lump NOS"),  # another chapter
            Term(4, "E01.1", 0, "Goiter"),
            Term(4, "E02.1", 0, "goiter."),  # another category
            Term(5, "F01.1", 0, "Fall"),
            Term(20, "W01.1", 0, "fall"),  # a chapter without a label
            Term(20, "W02.1", 0, "Slip"),
        ]
    )
    assert kept == [Term(1, "A01.1", 0, "Fever")]


def test_titles_of_train_that_stand_nowhere_else_are_kept() -> None:
    kept = icd10.select_titles(
        [
            Term(1, "A02", "title", "Fevers,  NOS"),
            Term(1, "A03", "title", "Lump"),  # an inclusion term below
            Term(1, "A04", "title", "Rash"),  # this category is in test
            Term(1, "A06", "title", "Goiter"),
            Term(2, "C00", "title", "GOITER."),  # another title
            Term(1, "A07", "title", "Fall"),
            Term(20, "W01", "title", "fall"),  # another title, of a chapter without a label
            Term(20, "W02", "title", "Slip"),
        ],
        [Term(1, "A04.1", 0, "lump NOS")],
    )
    assert kept == [Term(1, "A02", "title", "Fevers")]


def test_a_title_is_told_from_the_names_of_longer_codes_and_blocks() -> None:
    found = tabular.parse(
        b"<list><chapter><name>1</name><desc>Some</desc><section id='A02-A03'><desc>Block</desc>"
        b"<diag><name>A02</name><desc>First</desc><inclusionTerm><note>One</note><note>Two</note></inclusionTerm>"
        b"<diag><name>A02.0</name><desc>Longer</desc><inclusionTerm><note>Three</note></inclusionTerm></diag></diag>"
        b"<diag><name>A03</name><desc>Second</desc></diag></section></chapter></list>",
        "list.xml",
    )
    assert found.titles == (Term(1, "A02", "title", "First"), Term(1, "A03", "title", "Second"))
    assert found.inclusion_terms == (
        Term(1, "A02", 0, "One"),
        Term(1, "A02", 1, "Two"),
        Term(1, "A02.0", 0, "Three"),
    )
