"""The store against the dictionary in memory that it replaced, and what opening and looking up may cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls import lookup, writer
from r1core_umls.concepts import SCOPES, Scope
from r1core_umls.knowledge import Concept, KnowledgeBase, Synonym
from r1core_umls.names import is_acronym, key_of, surface_keys, tokenise
from r1core_umls.store import hash64

from r1core.api import UserError


class Dictionary:
    """Names in a plain dictionary of Python objects: key to (concept id, surface) to (rank, exact only)."""

    def __init__(self, concepts: Iterable[Concept], scopes: Iterable[Scope]) -> None:
        self.postings: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
        self.longest: dict[str, int] = {}
        for concept in concepts:
            named = [(concept.name, 0, "")]
            named += [(s.text, 1 + SCOPES.index(s.scope), s.kind) for s in concept.synonyms if s.scope in scopes]
            for text, rank, kind in named:
                keys = surface_keys(text)
                if keys is None:
                    continue
                exact_only = int(kind == "abbreviation" or is_acronym(keys.core))
                self.longest[keys.first] = max(self.longest.get(keys.first, 0), keys.count)
                for key in keys.keys:
                    entries = self.postings.setdefault(key, {})
                    known = entries.get((concept.id, keys.core), (rank, exact_only))
                    entries[concept.id, keys.core] = min(known, (rank, exact_only))

    def select(self, key: str, text: str) -> list[tuple[str, str]]:
        best: dict[str, tuple[bool, int, str, str]] = {}
        for (concept_id, surface), (rank, exact_only) in self.postings.get(key, {}).items():
            differs = surface != text
            if not (differs and exact_only):
                order = (differs, rank, concept_id, surface)
                best[concept_id] = min(best.get(concept_id, order), order)
        return [(order[2], order[3]) for order in sorted(best.values())]

    def names(self) -> set[tuple[str, str]]:
        return {entry for entries in self.postings.values() for entry in entries}


WORDS = [
    "fever",
    "Fever",
    "fevers",
    "ASD",
    "asd",
    "Sjögren's",
    "sjogren",
    "ß",
    "heart",
    "(heart)",
    "x1",
    "肺炎",
    "é",
    "ALL",
]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).flatmap(
    lambda words: st.sampled_from([" ", "-", ", ", ". "]).map(lambda gap: gap.join(words))
) | st.text("aAsS (),.'\n\u0301é漢1", max_size=6)
SYNONYMS = st.builds(Synonym, TEXTS, st.sampled_from(SCOPES), st.sampled_from(["", "abbreviation", "MSH"]))
IDS = [f"X:{number}" for number in range(12)] + ["é", "a" * 40]
CONCEPTS = st.lists(
    st.builds(Concept, st.sampled_from(IDS), TEXTS, st.lists(SYNONYMS, max_size=4).map(tuple)),
    max_size=8,
    unique_by=lambda concept: concept.id,
)


@settings(max_examples=300, deadline=None)
@given(CONCEPTS, st.lists(TEXTS, max_size=6), st.sampled_from([("EXACT",), ("EXACT", "BROAD"), SCOPES]))
def test_equals_the_dictionary(concepts: list[Concept], texts: list[str], scopes: tuple[Scope, ...]) -> None:
    compare(concepts, texts, scopes)


def some_hashes_collide(text: str) -> int:
    return hash64(text) if text in IDS else hash64(text) % 3


@settings(max_examples=150, deadline=None)
@given(CONCEPTS, st.lists(TEXTS, max_size=6))
def test_equal_hashes_of_different_names_change_nothing(concepts: list[Concept], texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "hash64", some_hashes_collide)
        patch.setattr(lookup, "hash64", some_hashes_collide)
        compare(concepts, texts, ("EXACT",), collide=True)


def compare(concepts: list[Concept], texts: list[str], scopes: tuple[Scope, ...], *, collide: bool = False) -> None:
    base, dictionary = KnowledgeBase.of(concepts, scopes), Dictionary(concepts, scopes)
    assert list(base.concepts) == sorted(concepts, key=lambda concept: concept.id)
    named = {text for concept in concepts for text in (concept.name, *(s.text for s in concept.synonyms))}
    for text in {*texts, *named}:
        tokens = tokenise(text)
        for first in range(len(tokens.norms)):
            limit, expected = base.index.longest(tokens.norms[first]), dictionary.longest.get(tokens.norms[first], 0)
            assert limit >= expected if collide else limit == expected
            for last in range(first + 1, len(tokens.norms) + 1):
                key, piece = key_of(tokens, first, last), text[tokens.starts[first] : tokens.ends[last - 1]]
                found = base.index.select(base.index.find(key), key, piece)
                ours = [(base.concepts[base.index.concept(name)].id, base.surface(name)) for name in found]
                assert ours == dictionary.select(key, piece)
    owners = [base.concepts[position].id for position in base.concept_of_name]
    names = zip(owners, base.surfaces(range(base.number_of_names)), strict=True)
    assert sorted(names) == sorted(dictionary.names())


@settings(max_examples=100, deadline=None)
@given(CONCEPTS.filter(len), st.randoms(use_true_random=False))
def test_arrays_and_methods_agree_whatever_the_order_of_arrival(concepts: list[Concept], random: object) -> None:
    shuffled = list(concepts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    base = KnowledgeBase.of(shuffled)
    assert [base.position(concept.id) for concept in base.concepts] == list(range(len(base)))
    assert base.concept_of_name.dtype == np.int32
    assert base.rank_of_name.dtype == np.uint8
    assert list(base.concept_of_name) == [p for p in range(len(base)) for _ in base.names_of(p)]
    assert base.surfaces(range(base.number_of_names)) == [base.surface(n) for n in range(base.number_of_names)]
    assert base.surfaces(range(base.number_of_names - 1, -1, -1))[::-1] == base.surfaces(range(base.number_of_names))
    for position, concept in enumerate(base.concepts):
        best = [base.surface(name) for name in base.names_of(position) if base.rank_of_name[name] == 0]
        keys = surface_keys(concept.name)
        assert best == ([keys.core] if keys else [])
    with pytest.raises(ValueError, match="read-only"):
        base.concept_of_name[:] = 0
    assert "X:none" not in base
    with pytest.raises(IndexError):
        base.concepts[len(base)]
    assert base.concepts[-1] == base.concepts[len(base) - 1]
    assert base.concepts[:2] == list(base.concepts)[:2]


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(UserError, match="X:1 comes twice") as error:
        KnowledgeBase.of([Concept("X:1", "Fever"), Concept("X:2", "Cold"), Concept("X:1", "Pyrexia")])
    assert "sort the file" in error.value.fix


def test_an_empty_base_answers() -> None:
    base = KnowledgeBase.of([])
    assert (len(base), base.number_of_names, base.lookup("fever"), base.surfaces(range(0))) == (0, 0, (), [])
    assert base.replacements("X:1") == ()


PROBE = """
import json, sys, time
from pathlib import Path
from r1core_umls.cache import load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.linker import Linker
began = time.perf_counter()
base = load_or_build(HpoSource())
opened = time.perf_counter() - began
linker = Linker(base)
links = sum(len(linker.link(f"There is {concept.name}.")) for concept in base.concepts)
lines = Path("/proc/self/status").read_text().splitlines()
rss = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
print(json.dumps([opened, links, rss, [m for m in ("torch", "spacy", "pandas") if m in sys.modules]]))
"""


def test_a_process_that_links_with_hpo_opens_at_once_and_stays_small(hpo: KnowledgeBase, cache: Path) -> None:
    env = os.environ | {"R1CORE_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True)
    opened, links, peak, heavy = json.loads(done.stdout)
    assert links >= len(hpo)
    assert opened < 0.5
    assert peak < 300e6
    assert heavy == []
