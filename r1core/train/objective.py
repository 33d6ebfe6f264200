"""Objectives: what a batch costs, per sample. The loop turns that into a step; nothing else touches the optimiser.

R = rows, P = supervised positions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch

from r1core.api import UserError
from r1core.data.packing import Batch
from r1core.data.tokens import Encoded
from r1core.model import labels_check
from r1core.model.scores import Scores
from r1core.recipe.training import Train
from r1core.train.within import WithinLabels
from r1core.workbench import Workbench


class Objective(Protocol):
    """`weight` is known before the forward pass, so that ranks and micro-batches agree on the normaliser."""

    name: str

    def weight(self, row: Encoded) -> float:
        """What this row counts in the batch's mean (supervised tokens, for a token mean)."""
        ...

    def loss(self, scores: Scores, batch: Batch) -> torch.Tensor:
        """Summed loss of each row, `(R,)`, from the scores of the batch's P positions."""
        ...


@runtime_checkable
class BatchLoss(Protocol):
    """A model that declares a loss of the batch as a whole (how evenly its experts are used): no sum over samples.

    The loop adds it by the batch's share of the step; it has no gradient of one row, so private training adds none.
    """

    def reads(self, valid: torch.Tensor) -> None:
        """Told before a pass in training: which of its tokens, (B, T), are no padding."""
        ...

    def batch_loss(self) -> torch.Tensor | None:
        """Of the last pass in training, (), weighted as the model wants it; None without such a pass."""
        ...

    def begin(self) -> None:
        """Called before the first step of a training, and not where one goes on."""
        ...

    def after_step(self, progress: float) -> None:
        """Called when the optimiser has taken its step: `progress` is the share of all steps taken."""
        ...

    def balancing(self) -> AbstractContextManager[Callable[[float], None]]:
        """Entered behind the last step: passes inside change nothing but, by what it gives, how even the use is.

        That is called after each with a pace from 1 down to 0.
        """
        ...


class SupervisedFineTuning:
    """Cross-entropy of the response tokens, the end-of-turn token included, as a token-weighted mean.

    `label_smoothing` : share of each target that is spread over the whole vocabulary (arXiv:1512.00567, section 7).
    """

    name = "sft"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def weight(self, row: Encoded) -> float:
        """Response tokens of the row."""
        return float(len(row.response))

    def loss(self, scores: Scores, batch: Batch) -> torch.Tensor:
        """Summed (smoothed) cross-entropy in nats of each row's response, `(R,)`."""
        each = scores.cross_entropy(batch.targets, label_smoothing=self.label_smoothing)
        return batch.by_row(each)


class Multitask(SupervisedFineTuning):
    """The same mean over the rows of all tasks, each read under the adapters of its task (`r1core.model.pool`).

    A task weighs as many response tokens as its rows have; rows that may not prevail have to be fewer.
    """

    name = "multitask"


def objective_of(config: Train) -> Objective:
    """The objective that the recipe names, over the whole vocabulary."""
    if config.objective == "multitask":
        return Multitask(config.label_smoothing)
    return SupervisedFineTuning(config.label_smoothing)


def objective_for(bench: Workbench) -> Objective:
    """The objective that a run's recipe names, over the labels of its data set where it asks for them.

    Raises
    ------
    UserError : for a softmax over labels without one task that has a label set.
    """
    config = bench.recipe.train
    if config.softmax == "vocabulary":
        return objective_of(config)
    for refusal in labels_check.refusals(bench.recipe, bench.tasks):
        raise UserError(refusal.found, fix=refusal.fix)
    (task,) = bench.tasks.values()
    return WithinLabels([bench.renderer.response_ids(label) for label in task.choices], config.label_smoothing)
