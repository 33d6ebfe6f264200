"""The questions that fusion is measured on: right by another reading of the scene, balanced, and really held out."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from r1core.testing.files import module_from

FILE = Path(__file__).parents[3] / "benchmarks" / "scenes.py"
SIDES = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    return module_from(FILE, "r1core_scenes")


def beyond(of: tuple[int, int], relation: str, place: tuple[int, int]) -> bool:
    row, column = SIDES[relation]
    return row * place[0] + column * place[1] > row * of[0] + column * of[1]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_answers_are_right_and_combinations_are_kept_apart(scenes: ModuleType, split: str) -> None:
    allowed = scenes.combinations(3)
    others = set().union(*(held for name, held in allowed.items() if name != split))
    for things, kind, words, answer in scenes._drawn(split, 240, allowed, random.Random(0)):
        at = {(t.shape, t.colour): t.place for t in things}
        the = [i for i, word in enumerate(words) if word == "the" and words[i + 1] in scenes.COLOURS]
        named = [(words[i + 2], words[i + 1]) for i in the]
        relation = next(word for word in words if word in SIDES)
        assert (*named[0], relation) in allowed[split]
        subject = at[named[0]]
        there = [t for t in things if beyond(subject, relation, t.place)]
        if kind == "spatial":
            found = "yes" if beyond(at[named[1]], relation, subject) else "no"
            assert split != "train" or (*named[1], OPPOSITE[relation]) not in others
        elif kind == "counting":
            found = ("zero", "one", "two", "three")[len(there)]
        else:
            (found,) = [t.colour for t in there if t.shape == words[4]]
            assert {t.colour for t in things if t.shape == words[4] and t not in there} - {found}
        assert found == answer


def test_the_text_alone_says_nothing(scenes: ModuleType) -> None:
    asked = scenes.questions("train", 3000, 1)
    for kind, answers in scenes.ANSWERS.items():
        counts = Counter(scenes.VOCABULARY[a] for a in asked.answers[asked.kinds == kind])
        assert set(counts) == set(answers)
        assert max(counts.values()) / 1000 < 1 / len(answers) + 0.06
    again = scenes.questions("train", 3000, 1)
    assert np.array_equal(asked.images, again.images)
    assert np.array_equal(asked.tokens, again.tokens)


def test_shapes_are_drawn_in_their_cells(scenes: ModuleType) -> None:
    thing = scenes.Thing("square", "red", (1, 2))
    image = scenes.render([thing], random.Random(0))
    painted = np.argwhere((image == scenes.COLOURS["red"]).all(2))
    assert len(painted) == 36
    assert painted.min(0).tolist() >= [8, 16]
    assert painted.max(0).tolist() < [16, 24]
