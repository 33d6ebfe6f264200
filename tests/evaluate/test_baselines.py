"""Baselines on a small made-up task whose answer is in the words."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1core.api import Example, Message, UserError
from r1core.evaluate import baselines

LABELS = ("Heart", "Eye", "Nerve", "Toe")
STEMS = {"Heart": ("cardi", "aort"), "Eye": ("retin", "ocul"), "Nerve": ("neur", "mening")}
ENDINGS = ("itis", "oma", "osis", "algia", "opathy", "ectomy")


def split(numbers: range) -> tuple[list[str], list[str]]:
    """Terms such as `Which organ? neuritis 7`; the stem gives the label away."""
    texts, labels = [], []
    for i in numbers:
        label = LABELS[i % 3]
        texts.append(f"Which organ?\n{STEMS[label][i // 3 % 2]}{ENDINGS[i % 6]} grade {i}\nOne word.")
        labels.append(label)
    return texts, labels


TRAIN, VAL, TEST = split(range(90)), split(range(90, 120)), split(range(120, 180))


@pytest.fixture(scope="module")
def result() -> baselines.TfidfResult:
    return baselines.tfidf(*TRAIN, *VAL, TEST[0], labels=LABELS, seed=1)


def test_tfidf_learns_stems_that_it_never_saw_with_these_numbers(result):
    answers = [LABELS[i] for i in result.scores.argmax(axis=1)]
    assert answers == TEST[1]
    assert result.validation_accuracy == 1.0


def test_a_label_that_train_lacks_ranks_last_but_finite(result):
    assert result.scores.shape == (60, 4)
    assert np.isfinite(result.scores).all()
    assert (result.scores.argmin(axis=1) == LABELS.index("Toe")).all()


def test_the_columns_follow_the_given_order_of_labels(result):
    order = ("Toe", "Nerve", "Eye", "Heart")
    other = baselines.tfidf(*TRAIN, *VAL, TEST[0], labels=order, seed=1)
    np.testing.assert_array_equal(other.scores, result.scores[:, ::-1])


def test_the_same_seed_gives_the_same_scores(result):
    again = baselines.tfidf(*TRAIN, *VAL, TEST[0], labels=LABELS, seed=1)
    np.testing.assert_array_equal(again.scores, result.scores)


def test_the_scores_of_a_test_row_do_not_depend_on_the_other_test_rows(result):
    alone = baselines.tfidf(*TRAIN, *VAL, TEST[0][5:6], labels=LABELS, seed=1)
    np.testing.assert_allclose(alone.scores[0, :3], result.scores[5, :3])


def test_validation_rows_choose_but_do_not_train():
    texts, labels = split(range(90, 96))
    marked = ["Which organ?\nzzz\nOne word."] * 30
    known = baselines.tfidf(*TRAIN, texts, labels, marked[:1], labels=LABELS)
    other = baselines.tfidf(*TRAIN, texts + marked, labels + ["Toe"] * 30, marked[:1], labels=LABELS)
    assert LABELS[known.scores[0].argmax()] != "Toe"
    assert LABELS[other.scores[0].argmax()] != "Toe"


def test_two_labels_work_too():
    rows = [(t, y) for t, y in zip(*TRAIN, strict=True) if y != "Nerve"]
    texts, labels = map(list, zip(*rows, strict=True))
    found = baselines.tfidf(texts, labels, texts, labels, texts, labels=("Eye", "Heart"))
    assert [("Eye", "Heart")[i] for i in found.scores.argmax(axis=1)] == labels


def test_progress_is_told_after_every_fit():
    told: list[tuple[int, int]] = []
    baselines.tfidf(*TRAIN, *VAL, TEST[0], labels=LABELS, on_fit=lambda *pair: told.append(pair))
    assert told == [(i, told[0][1]) for i in range(1, told[0][1] + 1)]


def test_the_question_around_the_terms_does_not_count():
    bare = ["cardiac arrest", "cardiomegaly", "itch"]
    asked = [f"Which organ?\nTerm: {t}\nOne word." for t in bare]
    prefix, suffix = baselines.shared_affixes(asked)
    assert (prefix, suffix) == ("Which organ?\nTerm: ", "\nOne word.")
    assert baselines.strip_affixes(asked, prefix, suffix) == bare
    assert baselines.strip_affixes(["something else"], prefix, suffix) == ["something else"]


def test_no_word_is_cut_at_what_terms_share_by_chance():
    assert baselines.shared_affixes(["cardiac arrest", "cardiomegaly and rest"]) == ("", "")


@given(st.lists(st.text(alphabet="ab \n", max_size=8), max_size=5))
def test_stripping_takes_the_same_ends_off_every_text_and_loses_nothing(texts):
    prefix, suffix = baselines.shared_affixes(texts)
    for text, stripped in zip(texts, baselines.strip_affixes(texts, prefix, suffix), strict=True):
        assert prefix + stripped + suffix == text
    assert baselines.shared_affixes(texts * 2) == (prefix, suffix)


def test_majority_ranks_labels_by_their_frequency_in_train():
    scores = baselines.majority(["Eye", "Nerve", "Eye"], 3, labels=LABELS)
    assert scores.shape == (3, 4)
    np.testing.assert_allclose(np.exp(scores), [[1 / 7, 3 / 7, 2 / 7, 1 / 7]] * 3)


def test_only_what_the_user_wrote_is_counted():
    turns = (Message("system", "S"), Message("user", "first"), Message("user", "second"), Message("assistant", "Eye"))
    assert baselines.user_text(Example("1", turns, "t")) == "first\nsecond"


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (TRAIN, ([], []), "validation split has no rows"),
        ((["a b", "c d"], ["Eye", "Eye"]), VAL, r"holds 1 label\(s\)"),
        ((["?", "!"], ["Eye", "Toe"]), VAL, "nothing to count"),
    ],
)
def test_data_that_cannot_train_a_baseline_is_the_users_to_mend(train, val, message):
    with pytest.raises(UserError, match=message) as error:
        baselines.tfidf(*train, *val, TEST[0], labels=LABELS)
    assert "evaluate.baselines = false" in error.value.fix


def test_a_missing_scikit_learn_is_a_line_to_type(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UserError, match="needs scikit-learn") as error:
        baselines.tfidf(*TRAIN, *VAL, TEST[0], labels=LABELS)
    assert error.value.fix == "pip install 'r1core[eval]'"
