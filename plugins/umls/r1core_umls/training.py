"""Trains the encoder on synonyms: two names of one concept are to lie closer than names of other concepts.

InfoNCE over a batch of pairs, both ways (van den Oord et al. 2018, "Representation learning with contrastive predictive
coding", equation 4; as used for synonyms by Liu et al. 2021, "Self-alignment pretraining for biomedical entity
representations"). Needs torch; the result does not.

Not covered: hard negatives (the nearest names of other concepts moved recall by less than its error on HPO), and
anything that is not a name: definitions and the hierarchy are left to ranking.
"""

# B = buckets, D = width, P = pairs of a batch

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from r1core_umls.encoder import WIDTH
from r1core_umls.features import BUCKETS, Bags, Names

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE = 128
"""Dimensions whose part of E is one table. Gradients of a table stay below 32 MB, above which the C library asks the
system for fresh pages at every step: two fifths of the time."""
MEMORY = 0.99  # of the mean of squares, a step
LEAST = 64
"""Names with a synonym without which training is refused."""


@dataclass(frozen=True)
class Training:
    """How the encoder is trained; chosen on concepts of HPO that the benchmark does not ask about.

    pairs : of a batch; of a base with fewer, all it has. temperature : of the similarities in the loss. spread :
    standard deviation of E at the start; features that no training name has keep it, so that unknown words still match
    themselves.
    """

    epochs: int = 8
    pairs: int = 1024
    learning_rate: float = 5e-3
    temperature: float = 0.1
    spread: float = 0.05
    width: int = WIDTH
    seed: int = 0


def train(
    names: Sequence[str],
    concepts: Sequence[int],
    config: Training | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float16]:
    """Train E, (B, D) float16.

    Parameters
    ----------
    names : the names to learn from. concepts : the concept of each; one with a single name teaches nothing.
    progress : told the steps done and their total.

    Raises
    ------
    ValueError : fewer than `LEAST` names with a synonym: nothing could be learnt.
    """
    config = config or Training()
    groups: dict[int, list[int]] = {}
    for name, concept in enumerate(concepts):
        groups.setdefault(concept, []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    number = sum(map(len, several))
    if number < LEAST:
        raise ValueError(f"{number} names have a synonym; at least {LEAST} are needed to learn from")
    size = min(config.pairs, number)
    draw = torch.Generator().manual_seed(config.seed)
    tables = [
        _Table(torch.randn(BUCKETS, min(SLICE, config.width - first), generator=draw) * config.spread)
        for first in range(0, config.width, SLICE)
    ]
    cut, total = Names.of(names), config.epochs * (number // size)
    owner = torch.tensor(concepts)
    for done, (left, right) in enumerate(_batches(several, config, size), 1):
        bags = cut.by_name.pick(np.concatenate([left, right]))
        used, place = np.unique(bags.values, return_inverse=True)
        features = cut.by_word.pick(used)  # every distinct word of the batch is summed once
        words = torch.cat([_sums(features, table.rows) for table in tables], 1).requires_grad_()
        both = functional.normalize(_sums(Bags(place, bags.offsets), words))
        _loss(both[:size], both[size:], owner[left], config.temperature).backward()
        assert words.grad is not None
        _step(tables, features, words.grad, config.learning_rate * max(0.02, 1 - done / total))
        if progress is not None:
            progress(done, total)
    return torch.cat([table.rows for table in tables], 1).numpy().astype(np.float16)


class _Table:
    """Some dimensions of E, with the mean of squares of each row's gradients and the steps it had."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self._squares, self._steps = rows, torch.zeros(len(rows)), torch.zeros(len(rows))

    def step(self, used: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        """Move rows against their gradient: Adam without momentum, one mean of squares a row instead of a number."""
        steps = self._steps[used] + 1
        squares = MEMORY * self._squares[used] + (1 - MEMORY) * gradient.square().mean(1)
        self._steps[used], self._squares[used] = steps, squares
        scale = rate / ((squares / (1 - MEMORY**steps)).sqrt() + 1e-10)
        self.rows.index_add_(0, used, gradient * -scale[:, None])


def _batches(
    several: Sequence[list[int]], config: Training, size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of names of one concept, (P,) and (P,): every name once an epoch, with another of its concept at random."""
    draw = random.Random(config.seed)
    for _ in range(config.epochs):
        pairs = [(name, draw.choice([n for n in group if n != name])) for group in several for name in group]
        draw.shuffle(pairs)
        for first in range(0, len(pairs) - size + 1, size):
            batch = np.array(pairs[first : first + size])
            yield batch[:, 0], batch[:, 1]


def _step(tables: Sequence[_Table], features: Bags, gradient: torch.Tensor, rate: float) -> None:
    """Hand the gradient of words, (W, D), on to the features that they are made of."""
    used, which = np.unique(features.values, return_inverse=True)
    words = np.repeat(np.arange(len(features)), np.diff(features.offsets))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(which))])
    by_feature, rows = Bags(words[np.argsort(which, kind="stable")], offsets), torch.from_numpy(used)
    for at, table in enumerate(tables):
        table.step(rows, _sums(by_feature, gradient[:, at * SLICE : (at + 1) * SLICE].contiguous()), rate)


def _sums(bags: Bags, rows: torch.Tensor) -> torch.Tensor:
    values, offsets = torch.from_numpy(bags.values), torch.from_numpy(bags.offsets[:-1])
    return functional.embedding_bag(values, rows, offsets, mode="sum")


def _loss(left: torch.Tensor, right: torch.Tensor, owner: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE in both directions; another pair of the same concept is no negative."""
    scores = left @ right.t() / temperature
    same = (owner[:, None] == owner[None]) & ~torch.eye(len(owner), dtype=torch.bool)
    scores = scores.masked_fill(same, -torch.inf)
    wanted = torch.arange(len(owner))
    return (functional.cross_entropy(scores, wanted) + functional.cross_entropy(scores.t(), wanted)) / 2
