"""The linker against a brute-force matcher, and what a reader of the spans would notice."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls.abbreviations import find_definitions
from r1core_umls.knowledge import Concept, KnowledgeBase, Synonym
from r1core_umls.linker import Linker

Build = Callable[..., KnowledgeBase]

WORDS = ["fever", "Fever", "fevers", "septal", "SEPTAL", "defect", "defects", "AB", "ab", "of", "x1"]
GAPS = [" ", "-", "  ", "/", ", ", ". ", "\n\n", "; "]


def brute_force(names: dict[str, str], text: str) -> list[tuple[int, int, str]]:
    """Every pair of word boundaries against every name, longest first; its own notion of sameness, written apart."""

    def same(name: str, piece: str) -> bool:
        if name == piece:
            return True
        if name.isupper() and len(name) <= 6 and name.isalnum():
            return False

        def flat(value: str) -> str:
            value = re.sub(r"\n *\n", "\v", value)
            value = re.sub(r"[ /\n-]*([,.;\v])[ /\n-]*", r"\1", value.lower())
            value = re.sub(r"[ /\n-]+", " ", value)
            return re.sub(r"\b(fever|defect)s\b", r"\1", value)

        wanted = flat(name)
        return flat(piece) in (wanted, wanted.replace(",", " "))

    starts = [m.start() for m in re.finditer(r"\b\w", text)]
    ends = [m.end() for m in re.finditer(r"\w\b", text)]
    hits = []
    for start in starts:
        for end in ends:
            fitting = [(name != text[start:end], cid) for name, cid in names.items() if same(name, text[start:end])]
            if end > start and fitting:
                hits.append((start, end, min(fitting)[1]))
    hits.sort(key=lambda hit: (hit[0] - hit[1], hit[0]))
    kept: list[tuple[int, int, str]] = []
    for hit in hits:
        if all(hit[1] <= other[0] or hit[0] >= other[1] for other in kept):
            kept.append(hit)
    return sorted(kept)


@st.composite
def joined(draw: st.DrawFn, most: int, gaps: list[str]) -> str:
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=most))
    parts = [words[0]]
    for word in words[1:]:
        parts += (draw(st.sampled_from(gaps)), word)
    return "".join(parts)


@settings(max_examples=150, deadline=None)
@given(names=st.lists(joined(3, [" ", "-", ", "]), min_size=1, max_size=6, unique=True), text=joined(12, GAPS))
def test_equals_brute_force(base_of: Build, names: list[str], text: str) -> None:
    base = base_of(*(Concept(f"X:{number}", name) for number, name in enumerate(names)))
    found = [(link.start, link.end, link.value.concept_id) for link in Linker(base).link(text)]
    assert found == brute_force({name: f"X:{number}" for number, name in enumerate(names)}, text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="aASD (),.-'\u2019\nséßİ漢字1½", max_size=60))
def test_any_text_links_without_overlap_and_spans_slice_to_the_match(base_of: Build, text: str) -> None:
    base = base_of(Concept("X:1", "as d"), Concept("X:2", "字"), Concept("X:3", "漢字"), Concept("X:4", "Séd (a)"))
    links = Linker(base, find_definitions).link(text)
    assert all(text[link.start : link.end] == link.value.matched and link.start < link.end for link in links)
    assert all(one.end <= two.start for one, two in pairwise(links))


@pytest.mark.parametrize(
    ("text", "matched", "concept_id", "method"),
    [
        ("an Atrial septal defect", "Atrial septal defect", "X:1", "exact"),
        ("two ATRIAL-SEPTAL  defects!", "ATRIAL-SEPTAL  defects", "X:1", "normalised"),
        ("Sjogren syndrome", "Sjogren syndrome", "X:4", "normalised"),
        ("sjogren's syndrome", "sjogren's syndrome", "X:4", "normalised"),
        ("Sjo\u0308gren\u2019s syndrome", "Sjo\u0308gren\u2019s syndrome", "X:4", "normalised"),
        ("Seizures, febrile", "Seizures, febrile", "X:7", "exact"),
        ("seizure febrile", "seizure febrile", "X:7", "normalised"),
        ("seizures. Febrile", "", "", ""),
        ("(a biopsy (procedure))", "biopsy (procedure)", "X:8", "normalised"),
        ("all of it", "", "", ""),
        ("ALL", "ALL", "X:9", "exact"),
        ("hole in the heart", "", "", ""),
        ("coldness", "", "", ""),
    ],
)
def test_matching(small: KnowledgeBase, text: str, matched: str, concept_id: str, method: str) -> None:
    links = Linker(small).link(text)
    found = [(link.value.matched, link.value.concept_id, link.value.method) for link in links]
    assert found == ([(matched, concept_id, method)] if matched else [])


def test_ambiguous_surface_keeps_the_alternatives(small: KnowledgeBase) -> None:
    (link,) = Linker(small).link("ASD")
    assert (link.value.concept_id, link.value.alternatives) == ("X:1", ("X:2",))
    # "chills" is the preferred name of X:6, a synonym of X:5: the preferred name comes first although its id is larger.
    (link,) = Linker(small).link("CHILL")
    assert (link.value.concept_id, link.value.alternatives) == ("X:6", ("X:5",))
    (link,) = Linker(small).link("Chill")
    assert (link.value.concept_id, link.value.method) == ("X:5", "exact")


def test_longest_match_wins_even_when_it_starts_later(base_of: Build) -> None:
    base = base_of(Concept("X:1", "upper back"), Concept("X:2", "back muscle weakness"))
    (link,) = Linker(base).link("upper back muscle weakness")
    assert link.value.concept_id == "X:2"


def test_abbreviation_links_wherever_it_stands(hpo: KnowledgeBase) -> None:
    text = "ASD was suspected. An atrial septal defect (ASD) was found; the ASD closed. ASDX did not."
    links = [link for link in Linker(hpo, find_definitions).link(text) if link.value.concept_id == "HP:0001631"]
    assert [(link.value.matched, link.value.method) for link in links] == [
        ("ASD", "abbreviation"),
        ("atrial septal defect", "normalised"),
        ("ASD", "abbreviation"),
        ("ASD", "abbreviation"),
    ]
    assert [link.start for link in links] == [0, 22, 44, 64]


def test_the_text_overrules_the_dictionary(small: KnowledgeBase) -> None:
    linker = Linker(small, find_definitions)
    autism = linker.link("autism spectrum disorder (ASD), then ASD")
    assert {link.value.concept_id for link in autism} == {"X:2"}
    unknown = linker.link("adaptive servo device (ASD) was set up")
    assert unknown == []


def test_many_parentheses_stay_linear(small: KnowledgeBase) -> None:
    linker = Linker(small, find_definitions)
    linker.link("load (spaCy)")

    def seconds(repeats: int) -> float:
        began = time.process_time()
        assert linker.link("a septal defect (SD) and (so on) more. " * repeats)
        return time.process_time() - began

    assert seconds(200) < 20 * max(seconds(40), 0.02)


def test_throughput_on_short_texts(hpo: KnowledgeBase) -> None:
    texts = [f"Which specialty treats {concept.name.lower()}?" for concept in hpo.concepts[:4000]]
    linker = Linker(hpo, find_definitions)
    began = time.process_time()
    for text in texts:
        if "(" not in text:
            linker.link(text)
    assert time.process_time() - began < 4  # 1,000 texts per CPU-second at the very least


def test_choice_does_not_depend_on_the_order_of_the_source(base_of: Build) -> None:
    concepts = [Concept("X:2", "Cold"), Concept("X:1", "Flu", (Synonym("Cold"),))]
    assert Linker(base_of(*concepts)).link("cold") == Linker(base_of(*reversed(concepts))).link("cold")
