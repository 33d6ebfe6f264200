"""Cross-entropy within a label set: the softmax at each token runs over what goes on towards some label.

A model that will only ever be asked within its label set need not learn to avoid all other words first, which under a
privacy policy is most of what the first steps spend. The loss of a row is the negative log-probability of its label
among all labels, as decoding within the set sees it: tokens that a label's start leaves no choice about cost nothing.

P = supervised positions, K = tokens that any label has, S = starts of labels. Not covered: several tasks in one run,
free text; and an answer without the set, which this training leaves as bad as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from r1core.api import UserError
from r1core.data.packing import Batch
from r1core.data.tokens import Encoded
from r1core.model.scores import Scores


class WithinLabels:
    """An `Objective`.

    Parameters
    ----------
    labels : token ids of each label with its end-of-turn token; none the start of another.
    label_smoothing : share of each target that is spread over the tokens that the set allows there.
    """

    name = "sft"

    def __init__(self, labels: Sequence[tuple[int, ...]], label_smoothing: float = 0.0) -> None:
        self._labels, self.label_smoothing = frozenset(labels), label_smoothing
        self._longest = max(map(len, labels))
        self._tokens = torch.tensor(sorted({token for label in labels for token in label}))  # (K,)
        place = {token: index for index, token in enumerate(self._tokens.tolist())}
        starts = {label[:length] for label in labels for length in range(len(label))}
        states = {start: number for number, start in enumerate(sorted(starts, key=lambda one: (len(one), one)))}
        self._next = torch.full((len(states), len(place)), -1)  # (S, K): -1 = not allowed
        for label in labels:
            for length, token in enumerate(label):
                self._next[states[label[:length]], place[token]] = states.get(label[: length + 1], 0)

    def weight(self, row: Encoded) -> float:
        """1: a row counts by its label, however many tokens that has.

        Raises
        ------
        UserError : for a row whose answer is no label.
        """
        if row.response not in self._labels:
            raise UserError(
                f'row {row.id!r}: its answer is not in the label set, which train.softmax = "labels" needs',
                fix="add it to data.choices, or leave the row out",
            )
        return 1.0

    def loss(self, scores: Scores, batch: Batch) -> torch.Tensor:
        """Negative log-probability of each row's label among all labels, in nats, `(R,)`."""
        device = batch.targets.device
        if self._next.device != device:
            self._tokens, self._next = self._tokens.to(device), self._next.to(device)
        logits = scores.of(self._tokens)  # (P, K)
        chosen = torch.searchsorted(self._tokens, batch.targets).clamp(max=len(self._tokens) - 1)
        allowed = self._next[self._states(batch, chosen)] >= 0
        logprobs = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        each = -logprobs.gather(-1, chosen[:, None])[:, 0]
        if self.label_smoothing:
            even = -logprobs.masked_fill(~allowed, 0.0).sum(-1) / allowed.sum(-1)
            each = (1 - self.label_smoothing) * each + self.label_smoothing * even
        return batch.by_row(torch.where(batch.row < batch.rows, each, 0.0))

    def _states(self, batch: Batch, chosen: torch.Tensor) -> torch.Tensor:
        """At which start of a label each position stands, (P,); a row's positions follow each other."""
        places = torch.arange(len(chosen), device=chosen.device)
        begins = torch.ones_like(places, dtype=torch.bool)
        begins[1:] = batch.row[1:] != batch.row[:-1]
        offset = places - torch.where(begins, places, 0).cummax(0).values
        state = torch.zeros_like(places)
        for step in range(1, self._longest):
            reached = self._next[state, chosen].clamp(min=0)
            state = torch.where(offset == step, reached.roll(1), state)
        return state
