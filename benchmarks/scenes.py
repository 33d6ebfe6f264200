"""Small scenes and questions about them, drawn from a seed: spatial relations, counting and colour.

A scene has two to seven shapes on a grid of four by four cells, each moved a little inside its cell. Every question
has a subject, a (shape, colour) that stands in the scene once, and a relation; this (shape, colour, relation) is its
combination. Which combinations are for testing, and which for choosing settings, is drawn from a seed, and no question
of training is about one of them, neither by its subject nor, the other way round, by the second shape it names.

    spatial   is the red circle left of the blue square ?          yes, no
    counting  how many shapes are above the red circle ?           zero to three
    colour    what colour is the cross below the red circle ?      one of six; another cross elsewhere has another

The kind is drawn first, then the answer, evenly, then subject and relation, then a scene in which that is the answer:
the text alone says nothing about it. Text-only accuracy is that of guessing: 1/2, 1/4 and 1/6.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID, CELL = 4, 8  # cells a side, pixels a cell
SIZE = GRID * CELL
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 180),
    "white": (240, 240, 240),
}
RELATIONS = {"left": (1, -1), "right": (1, 1), "above": (0, -1), "below": (0, 1)}
"""Axis of a place (row, column) and the sign of the difference to the subject."""
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
ANSWERS = {
    "spatial": ("yes", "no"),
    "counting": ("zero", "one", "two", "three"),
    "colour": tuple(COLOURS),
}
WORDS = ("<pad>", "?", "is", "the", "of", "how", "many", "shapes", "are", "what", "colour", "answer")
VOCABULARY = (*WORDS, *SHAPES, *RELATIONS, *dict.fromkeys(w for answers in ANSWERS.values() for w in answers))
TOKEN = {word: number for number, word in enumerate(VOCABULARY)}
LENGTH = 13
"""Tokens of the longest question; shorter ones are filled up in front."""
SHARES = {"test": 1 / 6, "val": 1 / 8}
"""Shares of the combinations; the rest is for training."""

CELLS = tuple((row, column) for row in range(GRID) for column in range(GRID))
LOOKS = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)

Combination = tuple[str, str, str]


@dataclass(frozen=True)
class Thing:
    """A shape of a scene; `place` is its (row, column)."""

    shape: str
    colour: str
    place: tuple[int, int]


@dataclass(frozen=True)
class Questions:
    """N questions: `images` (N, 32, 32, 3) uint8, `tokens` (N, LENGTH), `answers` (N,) tokens, `kinds` (N,) names."""

    images: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    answers: NDArray[np.int64]
    kinds: NDArray[np.str_]


def combinations(seed: int) -> dict[str, set[Combination]]:
    """Combinations of each split; every shape, colour and relation, and every pair of them, is among training's."""
    every = [(s, c, r) for s in SHAPES for c in COLOURS for r in RELATIONS]
    numbers = {name: round(share * len(every)) for name, share in SHARES.items()}
    rng = random.Random(f"{seed} combinations")
    while True:
        mixed = rng.sample(every, len(every))
        first, second = numbers["test"], numbers["test"] + numbers["val"]
        split = {"test": set(mixed[:first]), "val": set(mixed[first:second]), "train": set(mixed[second:])}
        if all(_pairs(split["train"], a, b) == _pairs(set(every), a, b) for a, b in ((0, 1), (0, 2), (1, 2))):
            return split


@functools.lru_cache(maxsize=2)
def questions(split: str, number: int, seed: int) -> Questions:
    """Questions about the combinations of a split; those of the last two calls are kept, and are not to be changed."""
    allowed = combinations(seed)
    rng = random.Random(f"{seed} {split}")
    drawn = list(_drawn(split, number, allowed, rng))
    tokens = np.zeros((number, LENGTH), np.int64)
    for row, (_, _, words, _) in zip(tokens, drawn, strict=True):
        row[LENGTH - len(words) :] = [TOKEN[word] for word in words]
    images = np.stack([render(things, rng) for things, *_ in drawn])
    answers = np.array([TOKEN[answer] for *_, answer in drawn])
    return Questions(images, tokens, answers, np.array([kind for _, kind, *_ in drawn]))


def render(things: list[Thing], rng: random.Random) -> NDArray[np.uint8]:
    """The scene as pixels (32, 32, 3) on a dark ground."""
    image = np.full((SIZE, SIZE, 3), 20, np.uint8)
    for thing in things:
        top, left = (CELL * at + rng.randrange(3) for at in thing.place)
        image[top : top + 6, left : left + 6][MASKS[thing.shape]] = COLOURS[thing.colour]
    return image


def holds(thing: Thing, relation: str, subject: Thing) -> bool:
    """Whether a thing is left of, right of, above or below the subject."""
    axis, sign = RELATIONS[relation]
    return sign * (thing.place[axis] - subject.place[axis]) > 0


def _drawn(
    split: str, number: int, allowed: dict[str, set[Combination]], rng: random.Random
) -> Iterator[tuple[list[Thing], str, list[str], str]]:
    subjects, kinds = sorted(allowed[split]), tuple(ANSWERS)
    for index in range(number):
        kind = kinds[index % len(kinds)]
        answer = rng.choice(ANSWERS[kind])
        while True:
            shape, colour, relation = rng.choice(subjects)
            things = _scene(shape, colour, rng)
            words = _asked(kind, answer, things, relation, rng)
            if words is not None and not (split == "train" and _turned(words) & (allowed["test"] | allowed["val"])):
                yield things, kind, words, answer
                break


def _scene(shape: str, colour: str, rng: random.Random) -> list[Thing]:
    """Two to seven things in different cells, the subject first and only once."""
    cells = rng.sample(CELLS, rng.randint(2, 7))
    things = [Thing(shape, colour, cells[0])]
    while len(things) < len(cells):
        look = rng.choice(LOOKS)
        if look != (shape, colour):
            things.append(Thing(*look, cells[len(things)]))
    return things


def _asked(kind: str, answer: str, things: list[Thing], relation: str, rng: random.Random) -> list[str] | None:
    """The question's words, where its answer in this scene is the wanted one; else None."""
    subject, *others = things
    there = [t for t in others if holds(t, relation, subject)]
    named = ["the", subject.colour, subject.shape]
    if kind == "counting":
        right = len(there) == ANSWERS[kind].index(answer)
        return ["how", "many", "shapes", "are", relation, "of", *named, "?", "answer"] if right else None
    if kind == "spatial":
        once = [t for t in others if sum((t.shape, t.colour) == (o.shape, o.colour) for o in things) == 1]
        fitting = [t for t in once if holds(subject, relation, t) == (answer == "yes")]
        if not fitting:
            return None
        other = rng.choice(fitting)
        return ["is", *named, relation, "of", "the", other.colour, other.shape, "?", "answer"]
    fitting = [
        t for t in there
        if t.colour == answer and sum(o.shape == t.shape for o in there) == 1
        and any(o.shape == t.shape and o.colour != t.colour for o in others if o not in there)
    ]  # fmt: skip
    if not fitting:
        return None
    return ["what", "colour", "is", "the", fitting[0].shape, relation, "of", *named, "?", "answer"]


def _turned(words: list[str]) -> set[Combination]:
    """The combination of the second thing that a spatial question names: A left of B is B right of A."""
    if words[0] != "is":
        return set()
    return {(words[8], words[7], OPPOSITE[words[4]])}


def _pairs(of: set[Combination], a: int, b: int) -> set[tuple[str, str]]:
    return {(one[a], one[b]) for one in of}


def _masks() -> dict[str, NDArray[np.bool_]]:
    y, x = np.mgrid[:6, :6]
    return {
        "circle": (y - 2.5) ** 2 + (x - 2.5) ** 2 < 6.6,
        "square": np.ones((6, 6), bool),
        "triangle": np.abs(x - 2.5) <= (y + 1) / 2,
        "cross": (np.abs(y - 2.5) < 1) | (np.abs(x - 2.5) < 1),
    }


MASKS = _masks()
