"""Weighs the evidence: a small network gives each concept of a mention a score, and those scores a probability.

One hidden layer of rectified units, a third of them of each of three networks whose scores are averaged; applied by
numpy, trained by torch with the cross-entropy of the right concept among those found (a listwise loss: Cao et al. 2007,
"Learning to rank: from pairwise approach to listwise approach"). That none of them is meant is one more choice, with
score 0. A fifth of the mentions is kept back; on it the scores are divided by the temperature that makes the
probabilities true (Guo et al. 2017, "On calibration of modern neural networks", section 4.2), and the threshold is
found that holds a wanted precision.
"""

# Q = mentions, M = concepts of each, X = columns of evidence, H = hidden units, V = mentions kept back

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import Evidence
from r1core_umls.tables import Tables

if TYPE_CHECKING:
    import faiss

HIDDEN, BATCH, RATE, DECAY, DROPPED = 64, 512, 5e-3, 1e-2, 0.1
NETWORKS = 3  # that are averaged
EPOCHS, FEWEST_STEPS, MOST_STEPS = 100, 200, 1600
KEPT_BACK = 5  # one concept in so many
FEWEST = 10  # mentions kept back that a precision must be seen on
TEMPERATURES = np.exp(np.linspace(-1, 1.5, 51))
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Ranker:
    """mean, deviation : of the columns (X,). first : (X + 1, H), the last row a bias. second : (H + 1,), likewise.

    sure : (V,) the largest probability of each mention kept back, descending. right : (V,) whether that was right.
    """

    mean: Array
    deviation: Array
    first: Array
    second: Array
    sure: Array
    right: NDArray[np.bool_]

    def probabilities(self, evidence: Evidence) -> Array:
        """Return the probability of each concept, (Q, M); 0 where there is none.

        What a row lacks to 1 is the probability that none of them is meant.
        """
        return _shares(_scores(self, evidence))

    def threshold(self, precision: float) -> float:
        """Return the least probability from which at least this fraction of answers was right, on what was kept back.

        Above 1, so that nothing passes, where no threshold holds it.
        """
        held = np.cumsum(self.right) / np.arange(1, len(self.right) + 1) >= precision
        held[: FEWEST - 1] = False
        # Equal probabilities pass together or not at all.
        held[:-1] &= self.sure[:-1] > self.sure[1:]
        return float(self.sure[np.flatnonzero(held)[-1]]) if held.any() else float("inf")


@dataclass(frozen=True)
class Fitted:
    """What training gives. `tables` : the base that it was trained on. `cells` : of a large one, see `search`."""

    encoder: Encoder
    ranker: Ranker
    tables: Tables
    cells: faiss.Index | None = None


def train_ranker(evidence: Evidence, answers: Sequence[int] | NDArray[np.int32], seed: int = 0) -> Ranker:
    """Train on mentions whose concept is known.

    Raises
    ------
    ValueError : the right concept is found for none of them.
    """
    wanted = np.asarray(answers)
    right = evidence.concepts == wanted[:, None]
    if not right.any():
        raise ValueError("the right concept is among those found for no mention; nothing can be learnt")
    back = wanted % KEPT_BACK == 0
    if back.all() or not right[~back].any():
        back[:] = False
    learnt, tried = ~back, back if back.any() else ~back
    columns = evidence.columns[learnt][evidence.concepts[learnt] >= 0]
    mean, deviation = columns.mean(0), columns.std(0) + np.float32(1e-6)
    standard = Evidence(evidence.concepts[learnt], (evidence.columns[learnt] - mean) / deviation)
    networks = [_network(standard, right[learnt], NETWORKS * seed + number) for number in range(NETWORKS)]
    first = np.concatenate([one for one, _ in networks], 1)
    units = np.concatenate([weights[:-1] for _, weights in networks])
    second = np.append(units, sum(weights[-1] for _, weights in networks)) / np.float32(NETWORKS)
    none: NDArray[np.bool_] = np.zeros(0, np.bool_)
    ranker = Ranker(mean, deviation, first, second, np.zeros(0, np.float32), none)
    held = Evidence(evidence.concepts[tried], evidence.columns[tried])
    scores = _scores(ranker, held)
    wanted = np.concatenate([right[tried], ~right[tried].any(-1, keepdims=True)], 1)
    loss = [-np.log(_all(scores / one)[wanted] + 1e-12).mean() for one in TEMPERATURES]
    temperature = np.float32(TEMPERATURES[int(np.argmin(loss))])
    shares = _shares(scores / temperature)
    order = np.argsort(-shares.max(1), kind="stable")
    chosen = np.take_along_axis(right[tried], shares.argmax(1)[:, None], 1)[:, 0]
    return Ranker(mean, deviation, first, second / temperature, shares.max(1)[order], chosen[order])


def _scores(ranker: Ranker, evidence: Evidence) -> Array:
    # One product for all mentions: numpy would take one of a few rows for each.
    columns = evidence.columns.reshape(-1, evidence.columns.shape[-1])
    hidden = ((columns - ranker.mean) / ranker.deviation) @ ranker.first[:-1]
    hidden += ranker.first[-1]
    scores = np.maximum(hidden, 0.0, out=hidden) @ ranker.second[:-1] + ranker.second[-1]
    return np.where(evidence.concepts >= 0, scores.reshape(evidence.concepts.shape), -np.inf).astype(np.float32)


def _all(scores: NDArray[np.floating]) -> Array:
    """Probabilities of scores (Q, M), and in one more column that of none."""
    scores = np.concatenate([scores, np.zeros((len(scores), 1))], 1)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


def _shares(scores: NDArray[np.floating]) -> Array:
    return _all(scores)[:, :-1]


def _network(evidence: Evidence, right: NDArray[np.bool_], seed: int) -> tuple[Array, Array]:
    """Train on standardised columns; returns `first` and `second` of the ranker."""
    import torch
    from torch import nn
    from torch.nn import functional

    draw = torch.Generator().manual_seed(seed)
    columns, absent = torch.from_numpy(evidence.columns), torch.from_numpy(evidence.concepts < 0)
    wanted = torch.from_numpy(np.where(right.any(-1), right.argmax(-1), right.shape[1]))
    inner, outer = nn.Linear(columns.shape[-1], HIDDEN), nn.Linear(HIDDEN, 1)
    for part in (inner, outer):
        limit = part.in_features**-0.5
        for values in (part.weight, part.bias):
            values.data = (torch.rand(values.shape, generator=draw) * 2 - 1) * limit
    optimizer = torch.optim.AdamW([*inner.parameters(), *outer.parameters()], lr=RATE, weight_decay=DECAY)
    steps = min(max(EPOCHS * len(columns) // BATCH, FEWEST_STEPS), MOST_STEPS)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        batch = torch.randint(len(columns), (min(BATCH, len(columns)),), generator=draw)
        hidden = functional.relu(inner(columns[batch]))
        kept = torch.rand(hidden.shape, generator=draw) >= DROPPED
        scores = outer(hidden * kept / (1 - DROPPED))[..., 0].masked_fill(absent[batch], -torch.inf)
        loss = functional.cross_entropy(functional.pad(scores, (0, 1)), wanted[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first = torch.cat([inner.weight.detach().t(), inner.bias.detach()[None]])
    second = torch.cat([outer.weight.detach()[0], outer.bias.detach()])
    return first.numpy().astype(np.float32), second.numpy().astype(np.float32)
