"""The encoder, the search and the ranker: against naive sums and sorts, and by what they find among made-up names."""

from __future__ import annotations

import random
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls import comparison, search
from r1core_umls.encoder import Encoder
from r1core_umls.evaluation import TEST, fold_of, held_out, recall
from r1core_umls.evidence import NAMED, Witness
from r1core_umls.features import BUCKETS, Bags
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.ranking import Ranker, train_ranker
from r1core_umls.search import TOLD, Nearest
from r1core_umls.tables import Tables


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


@pytest.fixture(scope="module")
def many(encoder: Encoder) -> Tables:
    draw = random.Random(0)
    names = [" ".join(draw.choice("bcdfgh") + draw.choice("aeiou") + str(n % 97) for _ in "ab") for n in range(4000)]
    return Tables.of(encoder, names, range(4000), [""] * 4000, [[]] * 4000)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_nearest_entries_are_those_of_a_full_sort(encoder: Encoder, names: int, k: int, seed: int) -> None:
    draw = random.Random(seed)
    words = [f"{draw.choice('bcdfgh')}{draw.choice('aeiou')}{number}" for number in range(names)]
    tables = Tables.of(encoder, words, range(names), [""] * names, [[]] * names)
    vectors = tables.entries.astype(np.float32)
    queries = vectors[np.random.default_rng(seed).integers(names, size=70)]
    cosines, entries = Nearest(tables).nearest(queries, k)
    full = queries @ vectors.T
    assert cosines.shape == (70, min(k, names))
    # Entries are of half precision, so of length 1 within 5e-4: closer ones may change places at the end.
    assert np.allclose(cosines, -np.sort(-full, axis=1)[:, : min(k, names)], atol=5e-4)
    assert np.allclose(np.take_along_axis(full, entries, 1), cosines, atol=1e-5)


def test_of_runs_of_entries_the_nearest_go_on(many: Tables) -> None:
    """4,000 entries in runs of 3: each one given is the nearest of its run, and the nearest of all is there."""
    vectors = many.entries.astype(np.float32)
    queries = vectors[::7] + 0.1 * vectors[3::7][: len(vectors[::7])].mean(0)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines, entries = Nearest(many).nearest(queries, 20)
    full = queries @ vectors.T
    runs = -(-4000 // 3)
    assert np.allclose(cosines[:, 0], full.max(1), atol=1e-5)
    for row, found in zip(full, entries.tolist(), strict=True):
        assert [row[one] for one in found] == pytest.approx([row[one % runs :: runs].max() for one in found], abs=1e-5)


def test_cells_find_nearly_what_a_full_sort_finds(
    many: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = many.entries.astype(np.float32)
    index = search.cells_of(many)
    search.save(index, tmp_path)
    again = search.load(tmp_path)
    assert again is not None
    assert search.load(tmp_path / "other") is None
    expected = np.argsort(-(vectors[::5] @ vectors.T), axis=1)[:, :10]
    monkeypatch.setattr(search, "MANY", 500)
    for one in (index, again):
        _, found = Nearest(many, one).nearest(vectors[::5], 10)
        shared = [len({*row} & {*right}) / 10 for row, right in zip(found.tolist(), expected.tolist(), strict=True)]
        assert np.mean(shared) > 0.95


def test_a_definition_counts_less_than_a_name(encoder: Encoder) -> None:
    tables = Tables.of(encoder, ["cyst", "scar"], [0, 1], ["", "a renal stone"], [[], []])
    cosines, entries = Nearest(tables).nearest(tables.entries[2:].astype(np.float32), 1)
    assert (entries[0, 0], cosines[0, 0]) == (2, pytest.approx(TOLD, abs=1e-3))
    assert tables.owners.tolist() == [0, 1, 1]


def test_an_exact_search_finds_what_a_full_sort_finds(many: Tables) -> None:
    vectors = many.entries.astype(np.float32)
    queries = vectors[::7] + np.random.default_rng(1).normal(0, 0.1, vectors[::7].shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines, _ = Nearest(many, exact=True).nearest(queries, 20)
    full = -np.sort(-(queries @ vectors.T), axis=1)[:, :20]
    # Entries are of half precision, so of length 1 within 5e-4.
    assert np.allclose(cosines, full, atol=5e-4)


def test_tables_written_while_they_are_made_are_the_same(many: Tables, encoder: Encoder, tmp_path: Path) -> None:
    names, owners = ["renal cyst", "kidney cyst", "liver scar"], [0, 0, 1]
    given = names, owners, ["", "a mark on the liver"], [[1], []]
    held = Tables.of(encoder, *given)
    Tables.of(encoder, *given, tmp_path).save(tmp_path)
    for name in Tables.files():
        assert np.array_equal(np.load(tmp_path / name), getattr(held, name.removesuffix(".npy"))), name
    assert held.names_of.tolist() == [[0, 1, -1, -1], [2, -1, -1, -1]]
    assert held.above.tolist() == [[1, -1], [-1, -1]]
    total = held.entries[:2].astype(float).sum(0)
    assert held.lengths.tolist() == pytest.approx([np.linalg.norm(total), 1.0], abs=2e-3)


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


def test_synonyms_of_unseen_concepts_are_found_once_their_words_are_learnt(
    organs: dict[str, str], findings: tuple[str, ...]
) -> None:
    """Each finding has an English and a Latin name; those of unseen concepts follow from the words of the others."""
    from r1core_umls.fitting import fit
    from r1core_umls.training import Training

    pairs = [(f"{organ} {finding}", f"{latin} {finding}") for organ, latin in organs.items() for finding in findings]
    random.Random(0).shuffle(pairs)
    known, unseen = pairs[:150], pairs[150:]
    names, owners = [name for pair in known for name in pair], [at for at in range(len(known)) for _ in range(2)]
    fitted = fit(names, owners, [""] * 150, [[]] * 150, Training(epochs=16, pairs=128, width=48))
    dictionary = [english for english, _ in pairs]
    nothing = [""] * len(pairs), [[]] * len(pairs)
    witness = Witness(Tables.of(fitted.encoder, dictionary, range(len(pairs)), *nothing))
    evidence = witness.weigh([latin for _, latin in unseen])
    ranked = np.take_along_axis(evidence.concepts, np.argsort(-fitted.ranker.probabilities(evidence), axis=1), 1)
    assert recall(ranked.tolist(), range(150, 200), 1) > 0.9
    chance = Encoder(np.random.default_rng(0).normal(0, 0.05, (BUCKETS, 48)).astype(np.float16))
    untrained = Witness(Tables.of(chance, dictionary, range(len(pairs)), *nothing))
    assert recall(untrained.weigh([latin for _, latin in unseen]).concepts.tolist(), range(150, 200), 1) < 0.5


def test_a_name_that_is_left_out_does_not_speak_for_its_concept(encoder: Encoder) -> None:
    names, owners = ["renal cyst", "kidney cyst", "liver scar"], [0, 0, 1]
    witness = Witness(Tables.of(encoder, names, owners, ["", ""], [[], []]))
    column = {name: at for at, name in enumerate(NAMED)}
    told = witness.weigh(["renal cyst"], [0])
    other = float(naive(encoder, ["renal", "cyst"]) @ naive(encoder, ["kidney", "cyst"]))
    first = told.columns[0, told.concepts[0].tolist().index(0)]
    assert first[column["cosine"]] == pytest.approx(other, abs=1e-3)
    assert first[column["mean of names"]] == pytest.approx(other, abs=1e-3), "nor through the mean of its names"
    assert first[column["names"]] == 0.0, "the logarithm of the one name that is left"
    assert first[column["words only in the mention"]] == 1


def test_a_parent_counts_only_where_it_is_weighed(encoder: Encoder) -> None:
    """Of three concepts, in a row of twelve: places without a concept are nobody's child or parent."""
    base = Tables.of(encoder, ["renal cyst", "liver scar", "lung pain"], [0, 1, 2], [""] * 3, [[], [0], [0]])
    told = Witness(base).weigh(["cyst of kidney"])
    column = {name: at for at, name in enumerate(NAMED)}
    for concept, columns in zip(told.concepts[0].tolist(), told.columns[0], strict=True):
        parents, children = columns[column["parents among them"]], columns[column["children among them"]]
        assert parents == (concept in (1, 2))
        assert children == pytest.approx(np.log(3) if concept == 0 else 0)


def test_probabilities_are_those_of_torch(encoder: Encoder) -> None:
    import torch

    tables = Tables.of(encoder, ["renal cyst", "liver scar", "lung pain"], [0, 1, 2], [""] * 3, [[], [0], []])
    evidence = Witness(tables).weigh(["cyst of kidney", "scars"])
    draw = np.random.default_rng(1)
    size = len(NAMED)
    parts = (draw.normal(size=shape).astype(np.float32) for shape in ((size,), (size,), (size + 1, 4), (5,)))
    ranker = Ranker(*parts, np.zeros(0, np.float32), np.zeros(0, bool))
    columns = torch.tensor((evidence.columns - ranker.mean) / ranker.deviation)
    hidden = torch.relu(columns @ torch.tensor(ranker.first[:-1]) + torch.tensor(ranker.first[-1]))
    scores = hidden @ torch.tensor(ranker.second[:-1]) + ranker.second[-1]
    scores = scores.masked_fill(torch.tensor(evidence.concepts < 0), -torch.inf)
    expected = torch.nn.functional.pad(scores, (0, 1)).softmax(-1).numpy()
    assert np.allclose(ranker.probabilities(evidence), expected[:, :-1], atol=1e-4)
    assert np.all(ranker.probabilities(evidence).sum(-1) < 1), "that none is meant has its share"


def test_words_are_compared_as_the_columns_say(encoder: Encoder) -> None:
    """Each column of words, by a loop over the words of the mention and of the only name and definition."""
    name, mention = "left renal cyst of skin", "renal cysts, bilateral"
    definition = "A bilateral sac in the kidney."
    tables = Tables.of(encoder, [name], [0], [definition], [[]])
    told = Witness(tables).weigh([mention]).columns[0, 0]
    column = dict(zip(NAMED, told.tolist(), strict=True))
    mine, theirs = ["renal", "cyst", "bilateral"], ["left", "renal", "cyst", "of", "skin"]
    defined = ["a", "bilateral", "sac", "in", "the", "kidney"]
    base = [naive(encoder, [word]) for word in theirs]
    _, axes = np.linalg.eigh(np.array(base).T @ np.array(base))

    def alike(one: str, other: str) -> float:
        left, right = (naive(encoder, [word]) @ axes for word in (one, other))
        return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))

    rarity = {word: np.log(2 / (0.5 + (word in theirs) + 0.3 * (word in defined))) for word in {*mine, *theirs}}
    forth = {word: max(alike(word, other) for other in theirs) for word in mine}
    back = {word: max(alike(word, other) for other in mine) for word in theirs}
    explained = {word: max(alike(word, other) for other in defined) for word in mine}
    total = sum(rarity[word] for word in mine)
    expected = {
        "mention covered": sum(forth[word] * rarity[word] for word in mine) / total,
        "name covered": sum(back[word] * rarity[word] for word in theirs) / sum(rarity[word] for word in theirs),
        "least of the mention": min(forth.values()), "least of the name": min(back.values()),
        "most missed of the mention": max((1 - forth[word]) * rarity[word] for word in mine),
        "words only in the mention": 1, "words only in the name": 3, "opposed of the mention": 1,
        "opposed of the name": 1, "words more": 2, "words": 3,
        "literally in the definition": rarity["bilateral"] / total, "least by the definition": min(explained.values()),
        "covered by either": sum(max(forth[word], explained[word]) * rarity[word] for word in mine) / total,
    }  # fmt: skip
    assert {key: column[key] for key in expected} == pytest.approx(expected, abs=2e-2)


def test_a_base_of_many_words_is_compared_alike(
    encoder: Encoder, many: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the words are too many to be gone over for every mention, their columns are looked up otherwise."""
    mentions = ["ba3 ce40", "unknown ba3", "hu96", "ba3 ba3 go12 nothing"]
    few = Witness(many).weigh(mentions)
    monkeypatch.setattr(comparison, "HELD", 0)
    other = Witness(many).weigh(mentions)
    assert np.array_equal(few.concepts, other.concepts)
    assert np.allclose(few.columns, other.columns, atol=1e-6)


def test_a_threshold_holds_the_precision_on_what_was_kept_back() -> None:
    draw = np.random.default_rng(0)
    sure = -np.sort(-draw.random(500).astype(np.float32))
    right = draw.random(500) < sure
    ranker = Ranker(*(np.zeros(1, np.float32) for _ in range(4)), sure, right)
    for precision in (0.5, 0.8, 0.9):
        least = ranker.threshold(precision)
        assert right[sure >= least].mean() >= precision
        lower = [right[sure >= other].mean() for other in sure if other < least]
        assert all(share < precision for share in lower), "no lower threshold holds it"
    assert Ranker(*(np.zeros(1, np.float32) for _ in range(4)), sure, ~right & right).threshold(0.5) > 1


def test_too_little_to_learn_from_is_said() -> None:
    from r1core_umls.training import train

    with pytest.raises(ValueError, match="4 names have a synonym; at least 64"):
        train(["a b", "c d", "e f", "g h"], [0, 0, 1, 1])
    flat = Encoder(np.ones((BUCKETS, 4), np.float16))
    witness = Witness(Tables.of(flat, ["a", "b"], [0, 1], ["", ""], [[], []]))
    with pytest.raises(ValueError, match="found for no mention"):
        train_ranker(witness.weigh(["a"]), [7])
