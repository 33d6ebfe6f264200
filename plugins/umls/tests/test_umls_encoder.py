"""The encoder, the search and the ranker: against naive sums and sorts, and by what they find among made-up names."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls.cli import umls
from r1core_umls.encoder import Encoder
from r1core_umls.evaluation import TEST, fold_of, held_out, recall
from r1core_umls.evidence import NAMED, Witness
from r1core_umls.features import BUCKETS, Bags
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.ranking import Ranker, train_ranker
from r1core_umls.search import NameVectors

from r1core.api import UserError

ORGANS = {
    "kidney": "renal", "liver": "hepatic", "heart": "cardiac", "lung": "pulmonary", "skin": "cutaneous",
    "brain": "cerebral", "eye": "ocular", "ear": "otic", "stomach": "gastric", "bone": "osseous",
}  # fmt: skip
FINDINGS = (
    "cyst", "stone", "swelling", "inflammation", "tumour", "bleeding", "scar", "failure", "pain", "infarct",
    "fracture", "ulcer", "abscess", "fistula", "stenosis", "atrophy", "fibrosis", "edema", "rupture", "spasm",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    weights = np.random.default_rng(0).normal(0, 0.05, (BUCKETS, 32)).astype(np.float16)
    return Encoder(weights)


def naive(encoder: Encoder, words: list[str]) -> np.ndarray:
    """The documented sum, feature by feature."""
    total = np.zeros(encoder.width)
    for word in words:
        framed = f"<{word}>"
        features = [f"word {word}"] + [framed[a : a + n] for n in (3, 4, 5) for a in range(len(framed) - n + 1)]
        for feature in features:
            total += encoder.weights[crc32(feature.encode()) % BUCKETS].astype(float)
    return total / np.linalg.norm(total)


def test_a_name_is_the_sum_of_its_words_features(encoder: Encoder) -> None:
    names = ["Renal cysts", "Sjögren's syndrome", "?", "Renal cysts"]
    expected = [
        naive(encoder, words) for words in (["renal", "cyst"], ["sjogren", "syndrome"], ["?"], ["renal", "cyst"])
    ]
    assert np.allclose(encoder.encode(names), expected, atol=1e-5)
    assert np.allclose(encoder.encode(names[:1]), expected[:1], atol=1e-5)
    assert encoder.encode([]).shape == (0, 32)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_nearest_names_are_those_of_a_full_sort(names: int, k: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors, queries = (draw.normal(size=(n, 8)).astype(np.float16) for n in (names, 70))
    scores, places = NameVectors(vectors).nearest(queries.astype(np.float32), k)
    cosines = queries.astype(np.float32) @ vectors.astype(np.float32).T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    assert places.shape == expected.shape
    assert np.allclose(scores, np.take_along_axis(cosines, expected, 1), atol=1e-5)
    assert np.allclose(np.take_along_axis(cosines, places, 1), scores, atol=1e-5)


def test_bags_pick_what_lists_would() -> None:
    lists = [[1, 2], [], [3], [4, 5, 6]]
    picked = Bags.of(lists).pick(np.array([3, 1, 0]))
    assert [picked.values[a:b].tolist() for a, b in zip(picked.offsets, picked.offsets[1:], strict=False)] == [
        [4, 5, 6], [], [1, 2],
    ]  # fmt: skip


def test_no_concept_that_is_asked_about_is_learnt_from(hpo: KnowledgeBase) -> None:
    split = held_out(hpo.concepts, seed=1)
    asked = {split.concepts[answer] for answer in split.answers}
    assert len(asked) == len(split.queries) > 1000
    assert all(fold_of(concept) in TEST for concept in asked)
    assert asked.isdisjoint(split.concepts[number] for number in split.teachers)
    held = {(name, owner) for name, owner in zip(split.names, split.owners, strict=True)}
    assert not any(pair in held for pair in zip(split.queries, split.answers, strict=True))
    assert set(split.answers) <= set(split.owners), "each of them keeps a name"
    assert held_out(hpo.concepts, seed=2).queries != split.queries


def test_recall_counts_the_first_k() -> None:
    assert recall([[1, 2], [3, 4], [5, 6]], [2, 3, 9], 1) == pytest.approx(1 / 3)
    assert recall([[1, 2], [3, 4], [5, 6]], [2, 3, 9], 2) == pytest.approx(2 / 3)


def test_synonyms_of_unseen_concepts_are_found_once_their_words_are_learnt() -> None:
    """Each finding has an English and a Latin name; those of unseen concepts follow from the words of the others."""
    from r1core_umls.fitting import fit
    from r1core_umls.training import Training

    pairs = [(f"{organ} {finding}", f"{latin} {finding}") for organ, latin in ORGANS.items() for finding in FINDINGS]
    random.Random(0).shuffle(pairs)
    known, unseen = pairs[:150], pairs[150:]
    names, owners = [name for pair in known for name in pair], [at for at in range(len(known)) for _ in range(2)]
    fitted = fit(names, owners, [""] * 150, [[]] * 150, Training(epochs=16, pairs=128, width=48))
    dictionary = [english for english, _ in pairs]
    witness = Witness(fitted.encoder, dictionary, range(len(pairs)), [""] * len(pairs), [[]] * len(pairs))
    evidence = witness.weigh([latin for _, latin in unseen])
    ranked = np.take_along_axis(evidence.concepts, np.argsort(-fitted.ranker.probabilities(evidence), axis=1), 1)
    assert recall(ranked.tolist(), range(150, 200), 1) > 0.9
    untrained = Witness(Encoder(np.random.default_rng(0).normal(0, 0.05, (BUCKETS, 48)).astype(np.float16)),
                        dictionary, range(len(pairs)), [""] * len(pairs), [[]] * len(pairs))  # fmt: skip
    assert recall(untrained.weigh([latin for _, latin in unseen]).concepts.tolist(), range(150, 200), 1) < 0.5


def test_a_name_that_is_left_out_does_not_speak_for_its_concept(encoder: Encoder) -> None:
    names, owners = ["renal cyst", "kidney cyst", "liver scar"], [0, 0, 1]
    witness = Witness(encoder, names, owners, ["", ""], [[], []])
    column = {name: at for at, name in enumerate(NAMED)}
    told = witness.weigh(["renal cyst"], [0])
    other = float(naive(encoder, ["renal", "cyst"]) @ naive(encoder, ["kidney", "cyst"]))
    first = told.columns[0, told.concepts[0].tolist().index(0)]
    assert first[column["cosine"]] == pytest.approx(other, abs=1e-3)
    assert first[column["mean of names"]] == pytest.approx(other, abs=1e-3), "nor through the mean of its names"
    assert first[column["names"]] == 0.0, "the logarithm of the one name that is left"
    assert first[column["words only in the mention"]] == 1


def test_probabilities_are_those_of_torch(encoder: Encoder) -> None:
    import torch

    witness = Witness(encoder, ["renal cyst", "liver scar", "lung pain"], [0, 1, 2], [""] * 3, [[], [0], []])
    evidence = witness.weigh(["cyst of kidney", "scars"])
    draw = np.random.default_rng(1)
    size = len(NAMED)
    ranker = Ranker(*(draw.normal(size=shape).astype(np.float32) for shape in ((size,), (size,), (size + 1, 4), (4,))))
    columns = torch.tensor((evidence.columns - ranker.mean) / ranker.deviation)
    hidden = torch.nn.functional.gelu(
        columns @ torch.tensor(ranker.first[:-1]) + torch.tensor(ranker.first[-1]), approximate="tanh"
    )
    scores = (hidden @ torch.tensor(ranker.second)).masked_fill(torch.tensor(evidence.concepts < 0), -torch.inf)
    assert np.allclose(ranker.probabilities(evidence), scores.softmax(-1).numpy(), atol=1e-4)
    assert np.allclose(ranker.probabilities(evidence).sum(-1), 1)


def test_too_little_to_learn_from_is_said() -> None:
    from r1core_umls.training import train

    with pytest.raises(ValueError, match="4 names have a synonym; at least 64"):
        train(["a b", "c d", "e f", "g h"], [0, 0, 1, 1])
    witness = Witness(Encoder(np.ones((BUCKETS, 4), np.float16)), ["a", "b"], [0, 1], ["", ""], [[], []])
    with pytest.raises(ValueError, match="found for no mention"):
        train_ranker(witness.weigh(["a"]), [7])


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 600 concepts with two names each."""
    file = tmp_path_factory.mktemp("made_up") / "base.jsonl"
    with file.open("w") as lines:
        for number, (organ, finding, how) in enumerate(product(ORGANS, FINDINGS, ("acute", "chronic", "congenital"))):
            names = f"{how} {organ} {finding}", f"{how} {ORGANS[organ]} {finding}"
            concept = {"id": f"X:{number}", "name": names[0], "synonyms": [names[1]], "definition": "", "parents": []}
            lines.write(json.dumps(concept) + "\n")
    return file


def test_mentions_are_normalised_by_an_encoder_that_is_trained_once(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    words = [
        "normalise",
        "Acute renal cysts",
        "cyst in kidneys, acute",
        "?",
        "--base",
        str(made_up),
        "-k",
        "2",
        "--json",
    ]
    first = CliRunner().invoke(umls, words)
    assert first.exit_code == 0, first.output
    rows = json.loads(first.stdout)
    known, *guessed = rows
    assert (known["name"], known["probability"], known["method"]) == ("acute kidney cyst", 1.0, "dictionary")
    assert [row["mention"] for row in guessed] == ["cyst in kidneys, acute"] * 2, "nothing is said of a mere sign"
    assert guessed[0]["name"] == "acute kidney cyst"
    assert guessed[0]["method"] == "encoder"
    assert guessed[0]["probability"] > guessed[1]["probability"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("encoder.npy")}
    assert len(files) == 1
    assert json.loads(CliRunner().invoke(umls, words).stdout) == rows
    assert {path: path.stat().st_mtime_ns for path in files} == files, "the second call trains nothing"
    (file,) = files
    with file.open("r+b") as damaged:
        damaged.seek(5000)
        damaged.write(b"\x01\x02\x03\x04")
    assert json.loads(CliRunner().invoke(umls, words).stdout) == rows
    assert "damaged" in caplog.text


def test_a_base_with_few_synonyms_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    file = tmp_path / "small.jsonl"
    file.write_text(json.dumps({"id": "X:1", "name": "cold", "synonyms": ["chill"]}) + "\n")
    result = CliRunner().invoke(umls, ["train", str(file)])
    assert isinstance(result.exception, UserError)
    assert "names have a synonym; at least 64 are needed" in str(result.exception)
