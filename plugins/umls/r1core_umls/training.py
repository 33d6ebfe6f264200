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
from torch import nn
from torch.nn import functional

from r1core_umls.encoder import WIDTH
from r1core_umls.features import BUCKETS, Bags, Names

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE = 128
"""Dimensions whose part of E is one table. Gradients of a table stay below 32 MB, above which the C library asks the
system for fresh pages at every step: two fifths of the time."""
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
    temperature: float = 0.15
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
    torch.manual_seed(config.seed)
    tables = [
        nn.Parameter(torch.randn(BUCKETS, min(SLICE, config.width - first)) * config.spread)
        for first in range(0, config.width, SLICE)
    ]
    optimizer = torch.optim.SparseAdam(tables, lr=config.learning_rate)
    cut, total = Names.of(names), config.epochs * (number // size)
    owner = torch.tensor(concepts)
    for done, (left, right) in enumerate(_batches(several, config, size), 1):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * max(0.02, 1 - done / total)
        loss = _loss(_encoded(tables, cut, left, right), owner[left], config.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(done, total)
    return torch.cat([table.detach() for table in tables], 1).numpy().astype(np.float16)


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


def _encoded(
    tables: Sequence[torch.Tensor], cut: Names, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of both sides, (P, D) each; every distinct word of the batch is summed once."""
    names = cut.by_name.pick(np.concatenate([left, right]))
    used, place = np.unique(names.values, return_inverse=True)
    features = cut.by_word.pick(used)
    words = torch.cat([_sums(features, table, sparse=True) for table in tables], 1)
    both = functional.normalize(_sums(Bags(place, names.offsets), words, sparse=False))
    return both[: len(left)], both[len(left) :]


def _sums(bags: Bags, rows: torch.Tensor, *, sparse: bool) -> torch.Tensor:
    values, offsets = torch.from_numpy(bags.values), torch.from_numpy(bags.offsets[:-1])
    return functional.embedding_bag(values, rows, offsets, mode="sum", sparse=sparse)


def _loss(both: tuple[torch.Tensor, torch.Tensor], owner: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE in both directions; another pair of the same concept is no negative."""
    scores = both[0] @ both[1].t() / temperature
    same = (owner[:, None] == owner[None]) & ~torch.eye(len(owner), dtype=torch.bool)
    scores = scores.masked_fill(same, -torch.inf)
    wanted = torch.arange(len(owner))
    return (functional.cross_entropy(scores, wanted) + functional.cross_entropy(scores.t(), wanted)) / 2
