"""Normalising mentions over a base on disk: the dictionary, the encoder trained once, abstaining, context."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner
from r1core_umls import fitting, search, tables
from r1core_umls.cache import load_or_build
from r1core_umls.cli import umls
from r1core_umls.concepts import Concept
from r1core_umls.jsonl import JsonlSource
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.normaliser import Normaliser
from r1core_umls.trained import folder_of, load, load_or_train

from r1core.api import UserError

COLDS = (
    ("runny nose", "An infection of the nose and throat by a virus, with sneezing and a running nose."),
    ("low temperature of limbs", "Hands and feet whose skin is less warm, from poor flow of blood to the limbs."),
)
"""Two concepts that are both called "cold"."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the tests of this file: what is trained in one is there for the next."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("R1CORE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory, organs: dict[str, str], findings: tuple[str, ...]) -> Path:
    """A base of 600 concepts with two names each, and two of one name."""
    file = tmp_path_factory.mktemp("made_up") / "base.jsonl"
    with file.open("w") as lines:
        for number, (organ, finding, how) in enumerate(product(organs, findings, ("acute", "chronic", "congenital"))):
            names = f"{how} {organ} {finding}", f"{how} {organs[organ]} {finding}"
            concept = {"id": f"X:{number}", "name": names[0], "synonyms": [names[1]], "definition": "", "parents": []}
            lines.write(json.dumps(concept) + "\n")
        for number, (name, definition) in enumerate(COLDS):
            concept = {"id": f"Y:{number}", "name": name, "synonyms": ["cold"], "definition": definition}
            lines.write(json.dumps(concept) + "\n")
    return file


@pytest.fixture(scope="module")
def normaliser(cache: Path, made_up: Path) -> Normaliser:
    base = load_or_build(JsonlSource(made_up))
    return Normaliser(base, load_or_train(base))


@pytest.mark.slow
def test_a_large_base_is_searched_by_cells(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large from 500 names here: one encoder, an inverted file on disk, and the same answers again from there."""
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    for room in (fitting, search, tables):
        monkeypatch.setattr(room, "MANY", 500)
    base = load_or_build(JsonlSource(made_up))
    first = Normaliser(base, load_or_train(base))
    assert (folder_of(base) / search.FILE).is_file()
    again = load(base)
    assert again is not None
    mentions = [f"{base.surface(name)} presenting" for name in range(0, base.number_of_names, 9)]
    found = first.candidates(mentions, 1)
    assert Normaliser(base, again).candidates(mentions, 1) == found
    right = [best.position == base.concept_of_name[9 * at] for at, (best, *_) in enumerate(found)]
    assert sum(right) / len(right) > 0.9


def test_a_large_base_without_faiss_is_refused_before_anything_is_trained(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    monkeypatch.setattr(fitting, "MANY", 500)
    monkeypatch.setitem(sys.modules, "faiss", None)
    told: list[str] = []
    base = load_or_build(JsonlSource(made_up))
    with pytest.raises(UserError, match="searched by faiss, which is not installed") as raised:
        load_or_train(base, lambda stage, done, total: told.append(stage))
    assert "r1core-umls[large]" in raised.value.fix
    assert told == []
    assert load(base) is None


@pytest.mark.slow
def test_mentions_are_normalised_by_an_encoder_that_is_trained_once(made_up: Path, cache: Path) -> None:
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
    exact = CliRunner().invoke(umls, [*words, "--exact"])
    assert [row["id"] for row in json.loads(exact.stdout)] == [row["id"] for row in json.loads(first.stdout)]
    assert CliRunner().invoke(umls, [*words, "-k", "10"]).exit_code == 0
    assert CliRunner().invoke(umls, [*words, "-k", "11"]).exit_code == 2
    rows = json.loads(first.stdout)
    known, *guessed = rows
    assert (known["name"], known["probability"], known["method"]) == ("acute kidney cyst", 1.0, "dictionary")
    assert [row["mention"] for row in guessed] == ["cyst in kidneys, acute"] * 2, "nothing is said of a mere sign"
    assert guessed[0]["name"] == "acute kidney cyst"
    assert guessed[0]["method"] == "encoder"
    assert guessed[0]["probability"] > guessed[1]["probability"]
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("encoder.npy")}
    assert len(files) == 1
    assert json.loads(CliRunner().invoke(umls, words).stdout) == rows
    assert {path: path.stat().st_mtime_ns for path in files} == files, "the second call trains nothing"


@pytest.mark.slow
def test_damaged_files_are_trained_again(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    base = load_or_build(JsonlSource(made_up))
    mentions = ["cyst in kidneys, acute", "scars of the brain"]
    before = Normaliser(base, load_or_train(base)).candidates(mentions)
    (file,) = tmp_path.rglob("encoder.npy")
    with file.open("r+b") as damaged:
        damaged.seek(5000)
        damaged.write(b"\x01\x02\x03\x04")
    assert load(base) is None
    assert "damaged" in caplog.text
    assert Normaliser(base, load_or_train(base)).candidates(mentions) == before


def test_a_base_with_few_synonyms_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path))
    file = tmp_path / "small.jsonl"
    file.write_text(json.dumps({"id": "X:1", "name": "cold", "synonyms": ["chill"]}) + "\n")
    result = CliRunner().invoke(umls, ["train", str(file)])
    assert isinstance(result.exception, UserError)
    assert "names have a synonym; at least 64 are needed" in str(result.exception)


@pytest.mark.slow
def test_what_is_read_back_answers_as_what_was_trained(normaliser: Normaliser) -> None:
    again = load(normaliser.base)
    assert again is not None
    mentions = ["renal cysts that are acute", "scars in the brain", "congenital heart"]
    assert Normaliser(normaliser.base, again).candidates(mentions, 3) == normaliser.candidates(mentions, 3)
    with pytest.raises(ValueError, match="this base has 1"):
        Normaliser(KnowledgeBase.of([Concept("X:1", "cold")]), again)


@pytest.mark.slow
def test_a_mention_alone_is_answered_as_among_others(
    normaliser: Normaliser, organs: dict[str, str], findings: tuple[str, ...]
) -> None:
    draw = random.Random(0)
    mentions = [f"{draw.choice([*organs])} with {draw.choice(findings)} of late" for _ in range(300)]
    together = normaliser.candidates(mentions, 1)
    for at in range(0, 300, 30):
        (alone,) = normaliser.candidates([mentions[at]], 1)
        assert alone[0].position == together[at][0].position
        assert alone[0].probability == pytest.approx(together[at][0].probability, abs=1e-4)


@pytest.mark.slow
def test_an_unsure_answer_is_not_given(normaliser: Normaliser) -> None:
    known = [concept.name for concept in normaliser.base.concepts[:600:7]]
    turned = [" ".join(reversed(name.split())) for name in known]
    nonsense = ["qwrt zxcvb", "invoice 2231 paid", "?", "tractor"]
    given = normaliser.normalise([*known, *turned, *nonsense])
    assert [one and (one.method, one.position) for one in given[: len(known)]] == [
        ("dictionary", at) for at in range(0, 600, 7)
    ]
    answered = [one for one in given[len(known) : -len(nonsense)] if one is not None]
    assert len(answered) > len(turned) / 2, "the order of words is not what tells concepts apart"
    assert given[-len(nonsense) :] == [None] * len(nonsense)
    with pytest.raises(ValueError, match="precision = 95"):
        normaliser.normalise(["cold"], precision=95)


@pytest.mark.slow
def test_context_decides_between_the_concepts_of_one_name(normaliser: Normaliser) -> None:
    def names(context: str | None) -> list[str]:
        contexts = None if context is None else [context]
        (found,) = normaliser.candidates(["cold"], 2, contexts)
        return [normaliser.base.concepts[one.position].name for one in found]

    infection, hands = "runny nose", "low temperature of limbs"
    assert set(names(None)) == {infection, hands}
    assert names("two days of a cold with virus infection of the nose and sneezing")[0] == infection
    assert names("her hands and feet were cold, the blood flow in the limbs poor")[0] == hands
    assert names("Cold.") == names(None), "nothing around it, nothing to go by"
    with pytest.raises(ValueError, match="1 mentions, but 2 contexts"):
        normaliser.candidates(["cold"], 2, ["a", "b"])
