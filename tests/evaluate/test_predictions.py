"""Predictions: what counts as an answer, what is stored and what is read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import Example, Message, Task, UserError
from r1core.evaluate import predictions
from r1core.evaluate.predictions import Prediction, normalise_answer

words = st.text(alphabet='aß\n\u2028"\\\\ \x00\U0001f600', max_size=5)  # what breaks careless line formats
TASK = Task("specialty", choices=("Heart", "Eye", "Nerve"), cluster="category")


def example(name: str, answer: str, **fields: object) -> Example:
    return Example(name, (Message("user", f"Term {name}"), Message("assistant", answer)), "specialty", fields=fields)


EXAMPLES = [example("1", "Heart", category="I10"), example("2", "eye.", category="H01"), example("3", "Nerve")]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Heart", "Heart"),
        ("  heart.\n", "Heart"),
        ("HEART", "Heart"),
        ("heart .", "Heart"),
        ("Heart..", None),
        ("Hearts", None),
        ("The heart", None),
        ("Heart, Eye", None),
        ("", None),
        (".", None),
    ],
)
def test_an_answer_is_a_label_or_nothing(text, label):
    assert normalise_answer(text, TASK.choices) == label


def test_labels_that_differ_in_case_only_are_told_apart_by_exact_spelling():
    assert normalise_answer(" us ", ("US", "us")) == "us"
    assert normalise_answer("Us", ("US", "us")) is None


def test_a_label_may_end_in_a_period():
    assert normalise_answer("e. coli spp", ("E. coli spp.",)) == "E. coli spp."


letters = st.text(alphabet="aAsSßıİ. \n", max_size=4)  # few, so that labels collide; some change length in casefold


@given(st.lists(letters, max_size=5), letters)
def test_an_answer_is_always_one_of_the_labels(choices, text):
    assert normalise_answer(text, choices) in {None, *choices}
    for label in choices:
        if label == label.strip():
            assert normalise_answer(label, choices) == label


SCORES = np.array([[-0.1, -3, -4], [-5, -6, -0.2], [-1, -2, -0.5]], dtype=np.float32)


def test_a_systems_answers_are_kept_row_by_row():
    found = predictions.from_scores(TASK, EXAMPLES, SCORES, texts=[f"I think {e.id}" for e in EXAMPLES])
    assert [p.example_id for p in found] == ["1", "2", "3"]
    assert [p.gold for p in found] == ["Heart", "Eye", "Nerve"]
    assert [p.cluster for p in found] == ["I10", "H01", "row 3"]
    assert [p.text for p in found] == ["I think 1", "I think 2", "I think 3"]
    assert [p.constrained for p in found] == ["Heart", "Nerve", "Nerve"]
    assert found[2].scores == (-1.0, -2.0, -0.5)


def test_a_system_that_generates_nothing_answers_by_its_best_label():
    found = predictions.from_scores(TASK, EXAMPLES, SCORES)
    assert [p.text for p in found] == [p.constrained for p in found] == ["Heart", "Nerve", "Nerve"]


def test_a_free_text_task_needs_no_scores_and_keeps_the_gold_text():
    (found,) = predictions.from_texts(Task("summary"), [example("9", "Two. Words.")], ["Two"])
    assert found == Prediction("9", "Two. Words.", "row 9", "Two")


@pytest.mark.parametrize(
    ("scores", "message"),
    [(np.zeros((3, 2)), r"\(3, 3\), found \(3, 2\)"), (np.full((3, 3), -np.inf), "not all finite")],
)
def test_scores_that_do_not_fit_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        predictions.from_scores(TASK, EXAMPLES, scores)


def test_a_missing_answer_is_refused():
    with pytest.raises(ValueError, match="3 examples, but 2"):
        predictions.from_scores(TASK, EXAMPLES, np.zeros((3, 3)), texts=["a", "b"])
    with pytest.raises(ValueError, match="3 examples, but 2"):
        predictions.from_texts(Task("summary"), EXAMPLES, ["a", "b"])


def test_a_gold_answer_outside_the_label_set_names_the_example():
    with pytest.raises(UserError, match="example '7': gold answer 'Toe' is not one of 3 labels"):
        predictions.gold_of(example("7", "Toe"), TASK.choices)


@given(
    st.lists(
        st.builds(
            Prediction,
            *[words] * 4,
            st.none() | words,
            st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
        ),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)  # each one is synced to disk
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("predictions") / "test.jsonl"
    predictions.write_predictions(path, rows)
    assert predictions.read_predictions(path) == rows


def test_the_file_is_plain_jsonl(tmp_path):
    path = tmp_path / "adapted.jsonl"
    predictions.write_predictions(path, [Prediction("1", "Heart", "I10", "Hearts", "Heart", (-0.5, -1.0))])
    assert json.loads(path.read_text()) == {
        "example_id": "1", "gold": "Heart", "cluster": "I10", "text": "Hearts", "constrained": "Heart",
        "scores": [-0.5, -1.0],
    }  # fmt: skip


@pytest.mark.parametrize(("line", "message"), [("{", ":2: broken JSON"), ('{"gold": "a"}', ":2: expected the keys")])
def test_a_damaged_file_is_named_with_its_line(tmp_path, line, message):
    path = tmp_path / "adapted.jsonl"
    predictions.write_predictions(path, [Prediction("1", "a", "c", "a")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=message):
        predictions.read_predictions(path)
