"""The filter in front of scispaCy's detector may pass too much, and must never hold back a definition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls.abbreviations import _pipeline, _windows, find_definitions
from r1core_umls.candidates import COME_ON, CUT_OFF, CUT_WORD, may_define
from r1core_umls.knowledge import KnowledgeBase

WORDS = [
    *("acute", "Septal", "Defect", "heart", "Failure", "mitral", "valve", "type", "of", "due", "to", "not", "cannot"),
    *(
        "ASD",
        "MRSA",
        "IGF-1R",
        "ADH1",
        "CRT-P",
        "T-cell",
        "gonna",
        "shouldntve",
        "don't",
        "we'd",
        "10km",
        "3.5",
        "βHCG",
    ),
    *(
        "ß",
        "İR",
        "患者",
        "éa",
        "x",
        "A.B.",
        "U.S.",
        "(",
        ")",
        " ( ",
        " ) ",
        "  ",
        "\n",
        "-",
        ".",
        ",",
        "'s",
        ":)",
        "(-:",
    ),
]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text("aAsSdD1 -.()", max_size=6), max_size=9).map(" ".join) | st.lists(
    st.sampled_from(WORDS), max_size=9
).map("".join)


def defines(text: str) -> bool:
    """Whether the detector itself finds something, asked about every window."""
    return any(_pipeline()(text[start:end])._.abbreviations for start, end in _windows(text))


@pytest.mark.parametrize(
    "text",
    [
        "atrial septal defect (ASD)",
        "ASD (a septal defect of the heart)",
        "insulin-like growth factor-1 receptor (IGF-1R)",
        "Prostatic intraepithelial neoplasia III (PIN III)",
        "signal transducer and activator of transcription 5B gene (STAT5b)",
    ],
)
def test_definitions_pass(text: str) -> None:
    assert defines(text)
    assert may_define(text)


@pytest.mark.parametrize(
    "text",
    [
        "Arrhythmia (cardiac)",
        "Acute bronchitis (with bronchospasm)",
        "Infection (chronic) (recurrent)",
        "Reaction to food (see also allergy)",
        "Hernia () of the groin",
        "no parenthesis",
        ") before (",
    ],
)
def test_plain_qualifiers_do_not(text: str) -> None:
    assert not defines(text)
    assert not may_define(text)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_nothing_that_the_detector_finds_is_held_back(text: str) -> None:
    for start, end in _windows(text):
        window = text[start:end]
        if _pipeline()(window)._.abbreviations:
            assert may_define(window)


def test_no_name_of_the_ontology_is_held_back(hpo: KnowledgeBase) -> None:
    texts = {s.text for concept in hpo.concepts for s in concept.synonyms} | {concept.name for concept in hpo.concepts}
    windows = {text[start:end] for text in texts if "(" in text for start, end in _windows(text)}
    found = [window for window in windows if _pipeline()(window)._.abbreviations]
    assert len(found) > 20
    assert [window for window in found if not may_define(window)] == []
    assert sum(map(may_define, windows)) < len(windows) / 2, "the filter is of use"


def test_spacy_cuts_words_where_the_filter_expects_it() -> None:
    parts = {text: [token[65] for token in tokens] for text, tokens in _pipeline().tokenizer.rules.items()}  # 65: ORTH
    for text, pieces in parts.items():
        joint = pieces[-2][-1] + pieces[-1][0] if len(pieces) > 1 else ""
        if joint.isascii() and joint.isalpha() and text.lower() not in COME_ON:
            assert pieces[-1].lower() in CUT_OFF, text
        if text.isascii() and text.isalpha() and len(pieces) > 1:
            assert len(text) <= CUT_WORD
            assert len(pieces) <= 3


def test_find_definitions_does_not_change_by_it() -> None:
    text = "A methicillin resistant Staphylococcus aureus (MRSA) infection (acute), MRSA (see below)."
    assert [(d.short, d.long) for d in find_definitions(text)] == [
        ("MRSA", "methicillin resistant Staphylococcus aureus")
    ]
