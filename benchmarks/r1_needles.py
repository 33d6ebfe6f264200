"""Documents with needles: statements that a question at the end asks for, each at a chosen place.

A statement is `prefix name middle word suffix`, a question is the same statement again, to be finished; every name has
one word in a document. Places are told by the word's distance to its node, the last token of its block of `every`
positions: 0 = the word is the node. Names, words and places are drawn anew for every document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
NEAR = -1
"""In place of a distance: within the window of every question."""
NAMES, WORDS = 64, 64
"""Names and words that are drawn from: a guess among the words is right once in so many."""
TRIES = 10_000
"""Places that are drawn for a needle before it is given up."""


@dataclass(frozen=True)
class Haystack:
    """What documents are made of.

    Parameters
    ----------
    text : tokens that documents are filled with.
    prefix, middle, suffix : of a statement.
    names, words : one token each.
    every, window : of the model that is to read them.
    """

    text: Ids
    prefix: Ids
    middle: Ids
    suffix: Ids
    names: Ids
    words: Ids
    every: int
    window: int

    @property
    def before(self) -> int:
        """Tokens of a statement before its word."""
        return len(self.prefix) + 1 + len(self.middle)

    @property
    def size(self) -> int:
        """Tokens of a statement."""
        return self.before + 1 + len(self.suffix)

    def statement(self, name: int, word: int) -> Ids:
        """Its tokens."""
        parts = (self.prefix, [name], self.middle, [word], self.suffix)
        return np.concatenate([np.asarray(part, np.int64) for part in parts])

    def asked_at(self, length: int, questions: int) -> Ids:
        """Positions whose next token is an answer, (Q,), in documents of `length` tokens."""
        return length - (questions - np.arange(questions)) * self.size + self.before - 1

    def place(self, random: np.random.Generator, distance: int | None, end: int, depth: tuple[float, float]) -> int:
        """A position for a word: far in front of `end` at a distance from its node, or near; None = any distance.

        `depth` says from which part of the far blocks, as shares from the first to the last.
        """
        far = (end - self.window) // self.every  # blocks that no question's window holds
        if distance == NEAR or far < 1:
            first = (0 if far < 1 else end - self.window // 2) + self.before
            return int(random.integers(first, end - len(self.suffix) - 1))
        if distance is None:  # close to the node as often as far from it: what is easy teaches what is not
            distance = int((self.every - self.size + 1) ** random.random()) - 1
        low, high = int(depth[0] * far), max(int(depth[0] * far) + 1, int(depth[1] * far))
        block = int(random.integers(low, min(high, far)))
        return block * self.every + self.every - 1 - distance

    def document(
        self,
        random: np.random.Generator,
        length: int,
        places: list[int | None],
        depth: tuple[float, float] = (0.0, 1.0),
    ) -> Ids:
        """(length,) tokens with a needle at each place, and all asked in another order at the end.

        Raises
        ------
        ValueError : where no room for a needle is found beside the others.
        """
        end = length - len(places) * self.size
        start = int(random.integers(len(self.text) - length))
        ids = self.text[start : start + length].copy()
        taken: list[int] = []
        for distance in places:
            tried = (self.place(random, distance, end, depth) for _ in range(TRIES))
            at = next((at for at in tried if all(abs(at - other) >= self.size for other in taken)), None)
            if at is None:
                raise ValueError(f"{length} tokens have no room for {len(places)} needles: make documents longer")
            taken.append(at)
        names = random.choice(self.names, len(places), replace=False)
        words = random.choice(self.words, len(places), replace=False)
        for at, name, word in zip(taken, names, words, strict=True):
            said = self.statement(name, word)[: end - at + self.before]
            ids[at - self.before : at - self.before + len(said)] = said
        order = random.permutation(len(places))
        ids[end:] = np.concatenate([self.statement(names[k], words[k]) for k in order])
        return ids

    def training(self, random: np.random.Generator, rows: int, length: int, needles: int) -> Ids:
        """Documents (rows, length) whose needles lie near once in four, else far."""
        chosen = [[NEAR if random.random() < 0.25 else None for _ in range(needles)] for _ in range(rows)]
        return np.stack([self.document(random, length, places) for places in chosen])


def plain(every: int, window: int) -> Haystack:
    """Tokens without meaning, for a model made from nothing: 256 of them fill, then names, words and two marks."""
    text = np.random.default_rng(1).integers(0, 256, 1 << 20)
    names = 256 + np.arange(NAMES)
    words = 256 + NAMES + np.arange(WORDS)
    mark = np.array([256 + NAMES + WORDS])
    return Haystack(text, mark, mark[:0], mark[:0], names, words, every, window)


def english(tokenizer: Path, text: Ids, every: int, window: int) -> Haystack:
    """Passwords of names, in English, in a text; names and words that are one token of a `tokenizer.json`."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))
    pieces = sorted(encoder.get_vocab().items(), key=lambda piece: piece[1])
    usable = [(piece[1:], number) for piece, number in pieces if piece.startswith("Ġ") and piece[1:].isalpha()]
    plain_words = [number for piece, number in usable if piece.islower() and 4 <= len(piece) <= 7]
    capitals = [number for piece, number in usable if piece.istitle() and 4 <= len(piece) <= 7]

    def ids(words: str) -> Ids:
        return np.array(encoder.encode(words, add_special_tokens=False).ids, np.int64)

    return Haystack(
        text, ids(" The password of"), ids(" is"), ids("."), np.array(capitals[:NAMES]),
        np.array(plain_words[500 : 500 + WORDS]), every, window,
    )  # fmt: skip
