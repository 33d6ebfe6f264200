"""What speaks for each concept that a mention may mean, as numbers that a ranker weighs. Torch-free.

The encoder's cosine sees a name as one sum. Here the words of the mention and those of a concept's nearest name are
compared one by one, each by its best match on the other side (Khattab & Zaharia 2020, "ColBERT", equation 3, weighted
by how rare a word is), so that a word without a counterpart ("bilateral", "absent") shows.
"""

# Q = mentions, M = concepts of each, L = words, C = concepts, N = names, P = width of a word's short vector

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder, unit
from r1core_umls.features import Names, words_of
from r1core_umls.search import NameVectors

NAMES, CONCEPTS = 48, 20  # nearest names that are looked at; concepts of them that are weighed
EACH = 3  # names of a concept whose words are compared
WORDS, SHORT = 12, 64  # words of a name that are compared; width of their vectors
NAMED = (
    "cosine", "second cosine", "mean of names", "behind the first", "mention covered", "name covered",
    "least covered word of the mention", "least covered word of the name", "definition", "has a definition",
    "words only in the mention", "words only in the name", "opposed words", "names", "words more", "parents", "place",
)  # fmt: skip
"""The columns of `Evidence.columns`."""
_OPPOSED = frozenset(
    {
        *("left", "right", "upper", "lower", "anterior", "posterior", "bilateral", "unilateral", "increased"),
        *("decreased", "high", "low", "absent", "male", "female", "proximal", "distal", "primary", "secondary"),
        *("congenital", "acquired", "recurrent", "mild", "severe", "progressive", "long", "short", "large", "small"),
        *("medial", "lateral", "superior", "inferior", "hand", "foot", "finger", "toe"),
    }
)
"""Words that a name may not gain or lose without meaning something else; numbers count as well."""
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evidence:
    """concepts : (Q, M) positions, -1 where there are fewer. columns : (Q, M, 17) float32, see `NAMED`."""

    concepts: NDArray[np.int64]
    columns: Array


class Witness:
    """Compares mentions with the names of a base.

    Parameters
    ----------
    names, owners : what may be meant, and the concept of each name (its position).
    definitions : by position; "" where there is none. parents : positions, by position.
    """

    def __init__(
        self,
        encoder: Encoder,
        names: Sequence[str],
        owners: Sequence[int],
        definitions: Sequence[str],
        parents: Sequence[Sequence[int]],
    ) -> None:
        self.encoder, self.owners = encoder, np.asarray(owners, np.int64)
        vectors = encoder.encode(names)
        self.nearest = NameVectors(vectors)
        cut = Names.of(names)
        self._words = {word: place for place, word in enumerate(cut.words)}
        self._rare = np.log((len(names) + 1) / (np.bincount(cut.by_name.values, minlength=len(cut.words)) + 0.5))
        long = unit(np.stack([encoder.word(word) for word in cut.words]))
        _, axes = np.linalg.eigh(long.T @ long)
        self._axes = np.ascontiguousarray(axes[:, -SHORT:]).astype(np.float32)
        self._short = np.concatenate([unit(long @ self._axes), np.zeros((1, self._axes.shape[1]), np.float32)])
        self._by_name = _padded(np.split(cut.by_name.values, cut.by_name.offsets[1:-1]))
        self._opposed = np.array([_is_opposed(word) for word in cut.words] + [False])
        self._weight = np.append(self._rare, 0.0).astype(np.float32)
        number = len(definitions)
        sums = np.zeros((number, encoder.width), np.float32)
        np.add.at(sums, self.owners, vectors)
        self._sums, self._centres = sums, unit(sums)
        self._counts = np.bincount(self.owners, minlength=number)
        told = [place for place, text in enumerate(definitions) if text]
        self._told = np.zeros(number, bool)
        self._told[told] = True
        self._defined = np.zeros((number, encoder.width), np.float16)
        if told:
            self._defined[told] = encoder.encode([definitions[place] for place in told])
        self._parents = _padded([np.array(up[:4], np.int64) for up in parents], 4)

    def weigh(self, mentions: Sequence[str], without: Sequence[int] = ()) -> Evidence:
        """Compare mentions with their nearest concepts.

        Parameters
        ----------
        without : a name of the base to leave out for each mention, for those that are such names themselves.
        """
        queries = self.encoder.encode(mentions)
        cosines, places = self.nearest.nearest(queries, NAMES + 1)
        if len(without):
            own = places == np.asarray(without)[:, None]
            cosines = np.where(own, -np.inf, cosines)
            order = np.argsort(-cosines, axis=1, kind="stable")
            cosines, places = np.take_along_axis(cosines, order, 1), np.take_along_axis(places, order, 1)
        concepts, names, first, second = self._grouped(cosines[:, :NAMES], places[:, :NAMES])
        columns = np.zeros((*concepts.shape, len(NAMED)), np.float32)
        there = np.maximum(concepts, 0)
        columns[..., 0], columns[..., 1] = first, second
        counts, centres = self._counts[there], self._centres[there]
        if len(without):
            mine = self.owners[np.asarray(without)][:, None] == concepts
            counts = counts - mine
            centres[mine] = unit(self._sums[concepts[mine]] - queries[np.nonzero(mine)[0]])
        columns[..., 2] = np.einsum("qmd,qd->qm", centres, queries)
        columns[..., 3] = first - first[:, :1]
        columns[..., 4:8], columns[..., 10:13], columns[..., 14] = self._words_of(mentions, names)
        columns[..., 8] = np.einsum("qmd,qd->qm", self._defined[there].astype(np.float32), queries)
        columns[..., 9] = self._told[there]
        columns[..., 13] = np.log(np.maximum(counts, 1))
        up = self._parents[there]
        near = np.einsum("qmud,qd->qmu", self._centres[np.maximum(up, 0)], queries)
        columns[..., 15] = np.where(up >= 0, near, -1.0).max(-1)
        columns[..., 16] = np.arange(concepts.shape[1]) / CONCEPTS
        return Evidence(concepts, columns)

    def _grouped(
        self, cosines: Array, places: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
        """Concepts (Q, M), their nearest names (Q, M, 3), and the cosines of the nearest and the next name.

        Where a concept has fewer names among the nearest, its first stands for the others.
        """
        rows = len(places)
        concepts, names = np.full((rows, CONCEPTS), -1), np.zeros((rows, CONCEPTS, EACH), np.int64)
        held = np.zeros((rows, CONCEPTS), np.int64)
        first, second = np.full((rows, CONCEPTS), -1.0, np.float32), np.full((rows, CONCEPTS), -1.0, np.float32)
        owners = self.owners[places]
        for row in range(rows):
            seen: dict[int, int] = {}
            lines = zip(owners[row].tolist(), places[row].tolist(), cosines[row].tolist(), strict=True)
            for owner, name, cosine in lines:
                if cosine == -np.inf:  # the name that is left out
                    continue
                at = seen.get(owner)
                if at is None and len(seen) < CONCEPTS:
                    at = seen[owner] = len(seen)
                    concepts[row, at], names[row, at, :], first[row, at] = owner, name, cosine
                    second[row, at], held[row, at] = cosine - 0.2, 1
                elif at is not None and held[row, at] < EACH:
                    second[row, at] = max(second[row, at], cosine)
                    names[row, at, held[row, at]] = name
                    held[row, at] += 1
        return concepts, names, first, second

    def _words_of(self, mentions: Sequence[str], names: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Coverage (Q, M, 4), words only on one side and opposed words (Q, M, 3), words more (Q, M).

        Of each concept the name counts that covers the mention and is covered by it best.
        """
        asked = self._asked(mentions)
        each = [self._compared(asked, names[..., which]) for which in range(EACH)]
        told = np.stack(each)  # (3, Q, M, 8)
        best = (told[..., 0] + told[..., 1]).argmax(0)
        chosen = np.take_along_axis(told, best[None, :, :, None], 0)[0]
        return chosen[..., :4], chosen[..., 4:7], chosen[..., 7]

    def _asked(self, mentions: Sequence[str]) -> _Asked:
        cut = [words_of(mention)[:WORDS] for mention in mentions]
        shape = len(cut), max(map(len, cut))
        short = np.zeros((*shape, self._axes.shape[1]), np.float32)
        rare, ids = np.zeros(shape, np.float32), np.full(shape, -2)
        opposed, unknown = np.zeros(shape, bool), float(self._rare.max())
        for row, words in enumerate(cut):
            for at, word in enumerate(words):
                place = self._words.get(word, -2)
                short[row, at] = self._short[place] if place >= 0 else self.encoder.word(word) @ self._axes
                ids[row, at], rare[row, at] = place, self._weight[place] if place >= 0 else unknown
                opposed[row, at] = _is_opposed(word)
        return _Asked(unit(short.reshape(-1, short.shape[-1])).reshape(short.shape), rare, ids, opposed)

    def _compared(self, asked: _Asked, names: NDArray[np.int64]) -> Array:
        """Compare mentions with one name of each concept, (Q, M); returns (Q, M, 8)."""
        theirs, there = self._by_name[names], asked.rare > 0  # (Q, M, L)
        weight, held = self._weight[theirs], theirs >= 0
        alike = np.einsum("qap,qmlp->qmal", asked.short, self._short[theirs], optimize=True)
        alike = np.where(held[:, :, None, :] & there[:, None, :, None], alike, -1.0)
        forth, back = alike.max(-1), alike.max(-2)
        equal = asked.ids[:, None, :, None] == theirs[:, :, None, :]
        lone, their_lone = there[:, None] & ~equal.any(-1), held & ~equal.any(-2)
        opposed = (lone & asked.opposed[:, None]).sum(-1) + (their_lone & self._opposed[theirs]).sum(-1)
        columns = (
            (forth * asked.rare[:, None]).sum(-1) / np.maximum(asked.rare.sum(-1), 1e-6)[:, None],
            (back * weight).sum(-1) / np.maximum(weight.sum(-1), 1e-6),
            np.where(there[:, None], forth, 1.0).min(-1),
            np.where(held, back, 1.0).min(-1),
            lone.sum(-1),
            their_lone.sum(-1),
            opposed,
            held.sum(-1) - there.sum(-1)[:, None],
        )
        return np.stack(columns, -1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Words of mentions: short vectors (Q, L, P), how rare they are, where they stand among the base's words."""

    short: Array
    rare: Array
    ids: NDArray[np.int64]
    opposed: NDArray[np.bool_]


def _is_opposed(word: str) -> bool:
    return word in _OPPOSED or any(character.isdigit() for character in word)


def _padded(lists: Sequence[NDArray[np.int64]], width: int = WORDS) -> NDArray[np.int64]:
    """Lists as rows, cut at `width`, filled up with -1."""
    out = np.full((len(lists), width), -1, np.int64)
    for row, values in enumerate(lists):
        out[row, : len(values)] = values[:width]
    return out
