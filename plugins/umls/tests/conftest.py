"""Fixtures: the installed HPO built once per session, and a small hand-made knowledge base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from r1core_umls.cache import load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import Concept, KnowledgeBase, Synonym


@pytest.fixture(scope="session")
def organs() -> dict[str, str]:
    """English to Latin, for made-up bases in which words of a name can be learnt apart."""
    return {
        "kidney": "renal", "liver": "hepatic", "heart": "cardiac", "lung": "pulmonary", "skin": "cutaneous",
        "brain": "cerebral", "eye": "ocular", "ear": "otic", "stomach": "gastric", "bone": "osseous",
    }  # fmt: skip


@pytest.fixture(scope="session")
def findings() -> tuple[str, ...]:
    """What an organ of such a base may have."""
    return (
        "cyst", "stone", "swelling", "inflammation", "tumour", "bleeding", "scar", "failure", "pain", "infarct",
        "fracture", "ulcer", "abscess", "fistula", "stenosis", "atrophy", "fibrosis", "edema", "rupture", "spasm",
    )  # fmt: skip


@pytest.fixture(scope="session")
def hpo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(hpo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder shared by the session, so that HPO is parsed once."""
    monkeypatch.setenv("R1CORE_CACHE", str(hpo_cache))
    return hpo_cache


@pytest.fixture
def hpo(cache: Path) -> KnowledgeBase:
    return load_or_build(HpoSource())


def build_base(*concepts: Concept) -> KnowledgeBase:
    return KnowledgeBase.of(concepts)


@pytest.fixture(scope="session")
def base_of() -> Callable[..., KnowledgeBase]:
    """Builds a knowledge base of the given concepts."""
    return build_base


@pytest.fixture
def small() -> KnowledgeBase:
    return build_base(
        Concept("X:1", "Atrial septal defect", (Synonym("ASD", kind="abbreviation"),), ("C0000001",)),
        Concept("X:2", "Autism spectrum disorder", (Synonym("ASD", kind="abbreviation"),), ("C0000002",)),
        Concept("X:3", "Septal defect", (Synonym("Hole in the heart", "RELATED"),)),
        Concept("X:4", "Sjögren's syndrome"),
        Concept("X:5", "Cold", (Synonym("Chill"),)),
        Concept("X:6", "Chills"),
        Concept("X:7", "Seizures, febrile"),
        Concept("X:8", "Biopsy (procedure)"),
        Concept("X:9", "Every part", (Synonym("ALL", kind="abbreviation"),)),
    )
