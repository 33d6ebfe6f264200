"""A concept's vector against the mean taken by hand, and what the layer makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from r1core_umls.concept_vectors import ConceptVectors
from r1core_umls.concepts import Concept, Synonym
from r1core_umls.encoder import WIDTH, Encoder
from r1core_umls.features import BUCKETS
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.plugin import LinkAnnotator, UmlsConfig, UmlsPlugin
from r1core_umls.values import KIND, LinkedConcept

from r1core.api import Context, Plan, SlotFeatures, UserError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    draw = np.random.default_rng(0)
    few = draw.integers(-8, 8, (BUCKETS // 64, WIDTH)).astype(np.float16)
    return Encoder(np.tile(few, (64, 1)))


@pytest.fixture
def base() -> KnowledgeBase:
    cleft = Concept("C1", "Cleft lip", (Synonym("Harelip", "EXACT"), Synonym("Cheiloschisis", "EXACT")))
    return KnowledgeBase.of([cleft, Concept("C2", "Short stature")])


def linked(concept_id: str) -> LinkedConcept:
    return LinkedConcept(concept_id, "", (), "", "exact")


def test_is_the_mean_of_the_names(base: KnowledgeBase, encoder: Encoder) -> None:
    vectors = ConceptVectors(lambda: (base, encoder))
    mean = np.mean([encoder.encode([name])[0] for name in ("Cleft lip", "Harelip", "Cheiloschisis")], axis=0)
    np.testing.assert_allclose(vectors(linked("C1")), mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(vectors(linked("C2")), encoder.encode(["Short stature"])[0], atol=1e-6)
    assert len(vectors(linked("C1"))) == ConceptVectors.width


def test_a_concept_of_another_base_adds_nothing(base: KnowledgeBase, encoder: Encoder) -> None:
    vectors = ConceptVectors(lambda: (base, encoder))
    assert not any(vectors(linked("C9")))
    with pytest.raises(KeyError):
        vectors.vector("C9")


def test_nothing_is_loaded_before_it_is_asked_for(base: KnowledgeBase, encoder: Encoder) -> None:
    calls: list[int] = []
    vectors = ConceptVectors(lambda: calls.append(1) or (base, encoder))
    assert not calls
    vectors(linked("C1")), vectors(linked("C2")), vectors(linked("C1"))
    assert calls == [1]


def test_the_recipe_chooses_it_and_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    config = UmlsConfig(vectors="encoder", abbreviations=False)
    annotator = LinkAnnotator(config)
    (kind,) = annotator.span_kinds
    assert (kind.name, kind.width) == (KIND, WIDTH)
    with pytest.raises(UserError, match="not trained yet"):
        annotator.fingerprint()
    (problem,) = UmlsPlugin().validate(Context("", config, 0), Plan({}))
    assert "r1core umls train" in problem.fix
    assert not UmlsPlugin().validate(Context("", UmlsConfig(vectors="encoder", layer=False), 0), Plan({}))


def test_the_layer_of_the_recipe_is_the_projection() -> None:
    pytest.importorskip("torch")
    (spec,) = UmlsPlugin().extra_layer(Context("", UmlsConfig(vectors="encoder"), 0), object())
    assert tuple(spec.factory(24).project.weight.shape) == (24, WIDTH)


def test_the_layer_projects_each_vector_onto_the_tokens_of_its_span() -> None:
    torch = pytest.importorskip("torch")
    from r1core_umls.layer import ConceptProjection

    layer, draw = ConceptProjection(6, width=5, seed=0), np.random.default_rng(0)
    start, end = np.array([[0, 2, 4]]), np.array([[2, 5, 9]])
    values = draw.standard_normal((1, 3, 5)).astype(np.float32)
    values[0, 2] = np.nan  # padding may hold anything
    mask = np.array([[True, True, False]])
    slots = SlotFeatures(*(torch.from_numpy(one) for one in (start, end, values, mask)))
    out = layer(torch.zeros(1, 7, 6), {KIND: slots}).detach().numpy()[0]
    weight, wanted = layer.project.weight.detach().numpy(), np.zeros((7, 6), np.float32)
    for slot in (0, 1):
        for token in range(start[0, slot], end[0, slot]):
            wanted[token] += weight @ values[0, slot]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    assert not out[5:].any()
