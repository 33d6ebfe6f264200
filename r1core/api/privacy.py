"""What `privacy` returns: a policy that draws the units of every step and makes of their gradients a private one.

A unit is what is protected: one patient, or one record. The core computes one gradient for each row, apart from all
others; which units a step is made of, how much each may weigh and what noise is added is the policy's.
"""

# R = rows of a pass

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from r1core.api.values import JSON

if TYPE_CHECKING:
    import torch


class RowGradients(Protocol):
    """Gradients of a training's weights for each row of a pass, apart."""

    def of(self, rows: int) -> AbstractContextManager[None]:
        """Inside, a forward and backward pass over so many rows keeps them apart. The loss is the sum over rows."""
        ...

    def take(self) -> list[torch.Tensor]:
        """The gradients of the last pass, one tensor `(R, *shape)` for each weight; they are given once."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateTask:
    """What a policy is told of a training before it begins.

    Parameters
    ----------
    model : as it is trained. weights : what is trained, in the order of all gradients below.
    ids, groups : of each training row its id and its group; None where it has none.
    source : fingerprint of the data set, over the raw bytes of its files.
    batch_size : units of a step, on average. epochs, steps : as the recipe says; `steps` 0 leaves it to the epochs.
    row_gradients : the core's.
    run : the run directory.
    anchor : what `PrivateTraining.anchor` gave when the checkpoint was written from which training goes on; None at
        the start.
    step : steps that were done then.
    """

    model: torch.nn.Module
    weights: Sequence[torch.nn.Parameter]
    ids: Sequence[str]
    groups: Sequence[str | None]
    source: str
    batch_size: int
    epochs: int
    steps: int
    row_gradients: RowGradients
    run: Path
    anchor: JSON = None
    step: int = 0


class PrivateTraining(Protocol):
    """One training under a policy. A step is `draw`, `add` for each pass, `finish`.

    `total` : optimiser steps of the training, those before a resumption included. `row_gradients` : the core's, or
    the policy's own.
    """

    total: int
    row_gradients: RowGradients

    def draw(self) -> Sequence[Sequence[int]]:
        """The rows of each unit of the next step; none where none is drawn.

        The step counts as spent when this returns, whatever becomes of it.

        Raises
        ------
        UserError : when the step would exceed the budget.
        """
        ...

    def add(self, gradients: Sequence[torch.Tensor], units: Sequence[Sequence[int]]) -> None:
        """Take the gradients of one pass.

        Parameters
        ----------
        gradients : `(R, *shape)` for each weight; its rows are those of the units, one unit behind the other.
        units : the rows of each unit of this pass, as `draw` named them; all rows of a unit are in one pass.
        """
        ...

    def finish(self) -> list[torch.Tensor]:
        """The step's private gradient, fp32, of each weight; it stands until the next step."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What may be told of the step, such as what was spent; nothing of it may depend on the records."""
        ...

    def anchor(self) -> JSON:
        """What a checkpoint keeps, to tell the policy's own records from older or newer ones."""
        ...

    def card(self) -> Mapping[str, JSON]:
        """What was spent, and what is guaranteed; its `guarantee`, one sentence, is printed when training ends."""
        ...

    def close(self) -> None:
        """Let go of what is held; called once, also after a failure."""
        ...


@runtime_checkable
class PrivacyPolicy(Protocol):
    """Makes trainings private.

    `hooks_modules` : whether it takes row gradients from the modules that own the weights, so that these have to be
    called as they are.
    """

    name: str
    hooks_modules: bool

    def begin(self, task: PrivateTask) -> PrivateTraining:
        """Begin a training, or go on with one.

        Raises
        ------
        UserError : when the rows have no units, or the budget, the data set or the records of what was spent do not
            allow it.
        """
        ...

    def fingerprint(self) -> str: ...
