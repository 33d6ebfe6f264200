"""What `Host.learner` gives: one run's model, trained round by round, whose weights come and go as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from r1core.api.values import JSON

if TYPE_CHECKING:
    import numpy as np


class Learner(Protocol):
    """A run that takes part in rounds: weights are set, trained on the run's own rows, and read again.

    `run` : the run directory. `sections` : the plugins' validated sections of its recipe, by plugin.
    `private` : whether a privacy policy makes its gradients.
    """

    run: Path
    sections: Mapping[str, Mapping[str, JSON]]
    private: bool

    @property
    def rows(self) -> int:
        """Training rows, as they were prepared."""
        ...

    def begin(self, rounds: int) -> JSON:
        """Load the model for so many rounds, each of the steps that `[train]` states; called once.

        What `save` wrote last, under the same recipe and data, is taken up: its weights stand, its record is returned;
        None where there is none. A privacy policy begins, or continues, one training of all rounds.

        Raises
        ------
        UserError : for a recipe that cannot be trained in rounds, and what the policy refuses.
        """
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the adapter's trained weights, fp32, by stable names."""
        ...

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the adapter's weights.

        Raises
        ------
        UserError : when names or shapes are not those of `weights()`, or a value is not finite.
        """
        ...

    def fit(self, number: int, proximal: float = 0.0) -> None:
        """Train the steps of one round, counted from 1, from the weights that stand, with a fresh optimiser.

        The order of rows and the learning rate's schedule go over all rounds; under a policy they follow its own count
        of steps, which a round that is trained again moves on.

        Parameters
        ----------
        proximal : mu of a term `mu / 2 * ||w - w_0||^2` in the loss, `w_0` the weights at the beginning of this call.

        Raises
        ------
        UserError : when the policy has no steps left.
        """
        ...

    def accuracy(self, split: str) -> dict[str, float]:
        """Share of rows whose best-scored label is right, for each task of the split that has a label set."""
        ...

    def save(self, record: JSON) -> None:
        """Keep weights, record, and what the policy spent, whole or not at all, for `begin` to take up."""
        ...

    def finish(self, name: str, record: JSON) -> None:
        """Write the adapter, and the record as `name`, as what training this run came to; every verb takes it so."""
        ...
