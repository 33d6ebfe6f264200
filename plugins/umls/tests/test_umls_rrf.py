"""The Metathesaurus reader on files written here, column by column."""

from __future__ import annotations

from pathlib import Path

import pytest
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.rrf import RrfSource

from r1core.api import UserError


def atom(
    cui: str,
    text: str,
    *,
    lat: str = "ENG",
    ts: str = "P",
    stt: str = "PF",
    ispref: str = "Y",
    sab: str = "MSH",
    suppress: str = "N",
) -> str:
    """One row of MRCONSO.RRF, written out in the manual's order."""
    return f"{cui}|{lat}|{ts}|L1|{stt}|S1|{ispref}|A1||M1|D1|{sab}|MH|D1|{text}|0|{suppress}|256|"


ROWS = [
    atom("C0018817", "Septal defect, atrial", ts="S", sab="ICD10"),
    atom("C0018817", "ASD letter case", stt="VC", sab="SNOMEDCT_US"),
    atom("C0018817", "Atrial Septal Defect"),
    atom("C0018817", "Vorhofseptumdefekt", lat="GER"),
    atom("C0018817", "Atrial Septal Defects", ispref="N"),
    atom("C0015967", "Fever obsolete", suppress="O"),
    atom("C0015967", "Fever", ispref="N", sab="SNOMEDCT_US"),
    "C0015967|ENG|P|too few columns|",
    atom("X0015967", "Bad identifier"),
    atom("C0015967", " "),
    atom("C0015967", "Unknown flag", suppress="Q"),
]


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    rows = [row.encode() for row in ROWS] + [atom("C0015967", "bad \udcff byte").encode("utf-8", "surrogateescape")]
    (tmp_path / "MRCONSO.RRF").write_bytes(b"\n".join(rows) + b"\n")
    (tmp_path / "MRSTY.RRF").write_text(
        "C0018817|T019|A1.2.2.1|Congenital Abnormality|AT1|256|\nC0015967|T184|A2.2.2|Sign or Symptom|AT2|256|\n"
        "C0015967|T033|A2.2|Finding|AT3||\nbroken\n"
    )
    return tmp_path


def test_preferred_names_and_semantic_types(meta: Path) -> None:
    base = KnowledgeBase.build(RrfSource(meta))
    defect = base["C0018817"]
    assert defect.name == "Atrial Septal Defect"
    assert [s.text for s in defect.synonyms] == ["Atrial Septal Defects", "ASD letter case", "Septal defect, atrial"]
    assert [s.kind for s in defect.synonyms] == ["MSH", "SNOMEDCT_US", "ICD10"]
    assert defect.cuis == ("C0018817",)
    assert defect.semantic_types == ("T019",)
    assert base["C0015967"].name == "Fever"
    assert base["C0015967"].semantic_types == ("T033", "T184")


def test_malformed_lines_are_counted_and_the_first_ones_named(meta: Path) -> None:
    report = KnowledgeBase.build(RrfSource(meta)).report
    assert (report.rows, report.kept, report.filtered, report.malformed) == (12, 5, 2, 6)
    assert [line.rsplit(": ", 1)[0].split(": ")[0] for line in report.malformed_lines] == [
        f"MRCONSO.RRF:{number}" for number in (8, 9, 10, 11, 12)
    ]
    assert report.malformed_lines[0] == "MRCONSO.RRF:8: 4 columns, expected 18 and a final |"


@pytest.mark.parametrize(
    ("source", "found", "absent"),
    [
        ({"languages": ("GER",)}, "Vorhofseptumdefekt", "fever"),
        ({"vocabularies": ("SNOMEDCT_US",)}, "fever", "atrial septal defect"),
        ({"suppressed": True}, "fever obsolete", "vorhofseptumdefekt"),
        ({}, "septal defect atrial", "fever obsolete"),
    ],
)
def test_filters(meta: Path, source: dict[str, tuple[str, ...]], found: str, absent: str) -> None:
    base = KnowledgeBase.build(RrfSource(meta, **source))  # type: ignore[arg-type]
    assert base.lookup(found)
    assert not base.lookup(absent)


def test_language_order_decides_the_preferred_name(meta: Path) -> None:
    assert KnowledgeBase.build(RrfSource(meta, ("GER", "ENG")))["C0018817"].name == "Vorhofseptumdefekt"
    assert KnowledgeBase.build(RrfSource(meta, ("ENG", "GER")))["C0018817"].name == "Atrial Septal Defect"


def test_fingerprint_covers_bytes_and_filters(meta: Path) -> None:
    plain = RrfSource(meta).fingerprint()
    sources = [RrfSource(meta, suppressed=True), RrfSource(meta, ("GER",)), RrfSource(meta, vocabularies=("MSH",))]
    assert len({plain, *(source.fingerprint() for source in sources)}) == 4
    with (meta / "MRSTY.RRF").open("a") as file:
        file.write("C0018817|T047|B|Disease or Syndrome|AT4||\n")
    assert RrfSource(meta).fingerprint() != plain


def test_missing_file_names_it_and_the_fix(meta: Path) -> None:
    (meta / "MRSTY.RRF").unlink()
    with pytest.raises(UserError, match=r"MRSTY\.RRF not found") as error:
        RrfSource(meta).fingerprint()
    assert "r1core umls build" in error.value.fix


def test_filters_that_leave_nothing_are_an_error(meta: Path) -> None:
    with pytest.raises(UserError, match="none of 12 rows passes the filters"):
        KnowledgeBase.build(RrfSource(meta, ("FRE",)))


def test_a_file_of_another_format_is_an_error(meta: Path) -> None:
    (meta / "MRCONSO.RRF").write_text("a,b\nc,d\ne,f\n")
    with pytest.raises(UserError, match=r"MRCONSO\.RRF:1: 0 columns"):
        KnowledgeBase.build(RrfSource(meta))
