"""Which names a misspelt word may stand for: a symmetric-delete index, then a weighted edit distance.

Two words within k edits of one another become equal when at most k letters are taken out of each (SymSpell, W. Garbe
2012), so that the words to compare are found by hash. Their distance is the restricted Damerau-Levenshtein distance
(Damerau 1964) with slips that fingers and ears make counted as less. Only lower-case ASCII letters are compared.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HEAD = 7  # letters of a word that are indexed; what lies behind them is compared only
LONG = 8  # letters from which on a name may have two edits
SHORTEST = 5  # letters of the shortest name that a misspelling is looked up for
OTHER_SOUND = 0.6  # cost of being spelt otherwise and sounding the same
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_VOWELS = frozenset("aeiouy")
# Letters that are read alike, longest first; the rest stands for itself.
_SOUND = {
    "ph": "f", "gh": "g", "rh": "r", "th": "t", "ck": "k", "qu": "k", "ce": "se", "ci": "si", "cy": "si", "ae": "e",
    "oe": "e", "ee": "e", "ea": "e", "ie": "i", "ei": "i", "oo": "u", "ou": "u", "c": "k", "q": "k", "x": "ks",
    "z": "s", "y": "i",
}  # fmt: skip
_SOUNDED = re.compile("|".join(sorted(_SOUND, key=len, reverse=True)))
_DOUBLED = re.compile(r"(.)\1+")


def _neighbours() -> frozenset[tuple[str, str]]:
    """Pairs of keys that touch on an English keyboard; each row lies half a key to the right of the one above."""
    at = {key: (column + row / 2, row) for row, keys in enumerate(_ROWS) for column, key in enumerate(keys)}
    near = [(a, b) for a, (x, y) in at.items() for b, (u, v) in at.items() if a != b and abs(y - v) <= 1]
    return frozenset((a, b) for a, b in near if abs(at[a][0] - at[b][0]) <= 1)


_NEIGHBOURS = _neighbours()


@dataclass(frozen=True, slots=True)
class Weights:
    """What an edit costs; `first` is added where it is the first letter, which is seldom wrong."""

    edit: float = 1.0
    neighbour: float = 0.7  # the key beside it
    vowel: float = 0.7  # a vowel for a vowel
    doubled: float = 0.5  # a letter twice instead of once, or once instead of twice
    swapped: float = 0.7  # two letters in each other's place
    first: float = 0.4


TYPING = Weights()


def distance(meant: str, written: str, weights: Weights = TYPING, most: float = math.inf) -> float:
    """The least cost of edits that turn one word into the other, no letter edited twice; infinite above `most`."""
    changes = _changes(weights)
    gaps = [_gap(written, j, letter, weights) for j, letter in enumerate(written)]
    before: list[float] = []
    above = [0.0, *itertools.accumulate(gaps)]
    least = 0.0
    for i, letter in enumerate(meant):
        lost = _gap(meant, i, letter, weights)
        left = above[0] + lost
        row, lowest = [left], left
        for j, other in enumerate(written):
            best = above[j]
            if letter != other:
                best += changes.get((letter, other), weights.edit) + (weights.first if not i and not j else 0.0)
                if i and j and letter == written[j - 1] and other == meant[i - 1]:
                    best = min(best, before[j - 1] + weights.swapped)
            if above[j + 1] + lost < best:
                best = above[j + 1] + lost
            if left + gaps[j] < best:
                best = left + gaps[j]
            row.append(best)
            left = best
            if best < lowest:
                lowest = best
        if min(lowest, least) > most:  # two rows, since a swap reaches over one
            return math.inf
        before, above, least = above, row, lowest
    return above[-1] if above[-1] <= most else math.inf


@functools.lru_cache(maxsize=8)
def _changes(weights: Weights) -> dict[tuple[str, str], float]:
    """What it costs to write one letter for another where that is less than any other edit."""
    vowels = {(a, b): weights.vowel for a in _VOWELS for b in _VOWELS}
    near = {pair: min(weights.neighbour, vowels.get(pair, weights.edit)) for pair in _NEIGHBOURS}
    return {pair: min(cost, weights.edit) for pair, cost in (vowels | near).items()}


def _gap(word: str, at: int, letter: str, weights: Weights) -> float:
    """The cost of a letter that the other word lacks."""
    if at and word[at - 1] == letter:
        return weights.doubled
    return weights.edit + (weights.first if at == 0 else 0)


def sound(word: str) -> str:
    """How a word is spelt where every sound has one spelling: "Phenytoin" and "fenitoin" are "fenitoin"."""
    plain = f"z{word[1:]}" if word.startswith("x") else word
    heard = _DOUBLED.sub(r"\1", _SOUNDED.sub(lambda match: _SOUND[match[0]], plain))
    return heard[:-1] if len(heard) > SHORTEST and heard.endswith("e") else heard


@dataclass(frozen=True, slots=True)
class Near:
    """A name near a word, and what lies between them."""

    name: str
    cost: float


class SpellingIndex:
    """Names by their spelling and by their sound; found are those within one edit, long ones within two."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(dict.fromkeys(n for n in names if len(n) >= SHORTEST and n.isascii() and n.isalpha()))
        self._sounds = [sound(name) for name in self._names]
        self._letters, self._heard = [_letters(n) for n in self._names], [_letters(s) for s in self._sounds]
        hashed: list[int] = []
        places: list[int] = []
        for place, name in enumerate(self._names):
            keys = {hash(key) for key in _shortened(name, _edits(name))}
            keys |= {hash(f"/{key}") for key in _shortened(self._sounds[place], 1)}
            hashed += keys
            places += [place] * len(keys)
        keys_of, at = np.array(hashed, dtype=np.int64), np.array(places, dtype=np.int32)
        order = np.argsort(keys_of, kind="stable")
        self._keys, self._places = keys_of[order], at[order]

    def __len__(self) -> int:
        return len(self._names)

    @property
    def nbytes(self) -> int:
        """Bytes of the index itself, without the names."""
        return self._keys.nbytes + self._places.nbytes

    def near(self, word: str, most: float = math.inf) -> list[Near]:
        """The names near a word (lower case) at no more than this cost, the nearest first."""
        heard = sound(word)
        letters, sounds = _letters(word), _letters(heard)
        found = []
        for place in self._candidates(word, heard):
            name = self._names[place]
            cost = math.inf
            # An edit changes at most two of the letters that a word holds.
            if (self._letters[place] ^ letters).bit_count() <= 2 * _edits(name):
                cost = distance(name, word, most=most)
            if cost > OTHER_SOUND and (self._heard[place] ^ sounds).bit_count() <= 2:
                alike = OTHER_SOUND + distance(self._sounds[place], heard, most=most)
                cost = min(cost, alike)
            if cost <= most:
                found.append(Near(name, cost))
        return sorted(found, key=lambda near: (near.cost, near.name))

    def _candidates(self, word: str, heard: str) -> list[int]:
        keys = [hash(key) for key in _shortened(word, 2 if len(word) >= LONG - 2 else 1)]
        keys += [hash(f"/{key}") for key in _shortened(heard, 1)]
        wanted = np.array(keys, dtype=np.int64)
        first = np.searchsorted(self._keys, wanted, "left")
        last = np.searchsorted(self._keys, wanted, "right")
        found = {int(p) for low, high in zip(first, last, strict=True) if high > low for p in self._places[low:high]}
        return [place for place in sorted(found) if abs(len(self._names[place]) - len(word)) <= 2]


def _edits(name: str) -> int:
    """How many edits a name may have."""
    return 2 if len(name) >= LONG else 1


def _letters(word: str) -> int:
    """Which letters a word holds, as bits."""
    return functools.reduce(lambda held, letter: held | 1 << (ord(letter) - 97), word, 0)


def _shortened(word: str, letters: int) -> set[str]:
    """The head of a word with up to that many letters taken out."""
    found = edge = {word[:HEAD]}
    for _ in range(letters):
        edge = {one[:i] + one[i + 1 :] for one in edge for i in range(len(one))}
        found = found | edge
    return found
