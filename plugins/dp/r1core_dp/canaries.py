"""A training whose units are canaries: what each would add to the gradient is known, and what comes out is read.

A canary's rows go through the model like anybody's; then its gradient is replaced by one along an axis of its own, far
longer than the clipping norm. So the real sampler, row gradients, clipping, noise and optimiser run, and one who sees
every private gradient, the adversary of the proof, looks along that axis. All other units of the data set are drawn and
have nothing to add.
"""

# m = canaries, P = trained weights, q = sampling rate, C = clipping norm

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r1core import api
from r1core_dp.config import DpConfig
from r1core_dp.entropy import system
from r1core_dp.policy import Training

if TYPE_CHECKING:
    import torch

SILENT = "silent/"  # how the ids of units begin that have nothing to add
LENGTH = 1000.0  # of a canary's gradient, in clipping norms


class Canaries:
    """A policy of one training: `dp/units`, with canaries for units. `seen` holds what its training saw.

    Parameters
    ----------
    axes : m. steps : that the training is to have.
    """

    name = "dp/canaries"

    def __init__(self, config: DpConfig, axes: int, steps: int) -> None:
        self.config, self._axes, self._steps = config, axes, steps
        self.hooks_modules = config.engine == "opacus"
        self.seen: Seen | None = None

    def begin(self, task: api.PrivateTask) -> Seen:
        """Begin it, once.

        Raises
        ------
        UserError : where it has another number of steps.
        """
        self.seen = Seen(self.config, task, self._axes)
        if self.seen.total != self._steps:
            self.seen.close()
            raise api.UserError(
                f"the run took {self._steps} steps, and its recipe states {self.seen.total}: it was trained by rounds",
                fix="audit a run that was trained at once with the same [train] and [plugins.dp]",
            )
        return self.seen

    def fingerprint(self) -> str:
        """Nothing is kept of it."""
        return self.name


class Seen(Training):
    """The training, and what an adversary sees of it.

    Parameters
    ----------
    axes : m; the units that entered come first in the task, and unit i has axis i.

    Attributes
    ----------
    scores : (m,) log-likelihood ratio, summed over steps, that the canary of an axis entered.
    counts : (N,) in how many steps each unit was drawn. sizes : units of each step.
    repeats : largest correlation of the noise of two steps in a row, in standard deviations.
    """

    def __init__(self, config: DpConfig, task: api.PrivateTask, axes: int) -> None:
        super().__init__(config, task, system)
        import torch

        weights = sum(weight.numel() for weight in task.weights)
        if weights <= axes:
            self.close()
            raise api.UserError(f"{weights} trained weights, and {axes} canaries", fix="fewer --canaries")
        self._entered = sum(1 for rows in self._rows if not task.ids[rows[0]].startswith(SILENT))
        self._unit_of = {rows[0]: unit for unit, rows in enumerate(self._rows)}
        spread = torch.linspace(0, weights - 1, axes, dtype=torch.float64).round().long()  # over all weights
        self._axes = spread[torch.from_numpy(np.random.default_rng().permutation(axes))]
        self.scores = np.zeros(axes)
        self.counts = np.zeros(self.number, dtype=np.int64)
        self.sizes: list[int] = []
        self.repeats = 0.0
        self._drawn = np.zeros(0, dtype=np.int64)  # canaries of this step
        self._added: list[NDArray[np.float64]] = []
        self._squares, self._measured = 0.0, 0
        self._last: torch.Tensor | None = None

    def draw(self) -> Sequence[Sequence[int]]:
        """As ever; units without anything to add are counted and left out."""
        drawn = super().draw()
        units = [self._unit_of[rows[0]] for rows in drawn]
        self.counts[units] += 1
        self.sizes.append(len(units))
        self._drawn = np.array([unit for unit in units if unit < self._entered], dtype=np.int64)
        return [rows for rows, unit in zip(drawn, units, strict=True) if unit < self._entered]

    def add(self, gradients: Sequence[torch.Tensor], units: Sequence[Sequence[int]]) -> None:
        """With each row's gradient replaced by its canary's."""
        import torch

        planted = torch.zeros(sum(map(len, units)), sum(g[0].numel() for g in gradients), device=gradients[0].device)
        owners = [self._unit_of[rows[0]] for rows in units for _ in rows]
        planted[torch.arange(len(owners)), self._axes[owners]] = LENGTH * self.config.max_grad_norm
        parts = planted.split([g[0].numel() for g in gradients], dim=1)
        super().add([part.view_as(g) for part, g in zip(parts, gradients, strict=True)], units)

    def finish(self) -> list[torch.Tensor]:
        """As ever; what comes out is read."""
        import torch

        made = super().finish()
        scale = self.sample_rate * self.number / self.config.max_grad_norm  # to units of C, as summed
        flat = torch.cat([part.flatten() for part in made]).double().cpu() * scale
        seen = flat[self._axes].numpy()
        self._added.append(seen[self._drawn])
        self.scores += likelihood_ratio(seen, self.noise_multiplier, self.sample_rate)
        flat[self._axes] = 0.0
        self._squares += float(flat.square().sum())
        self._measured += len(flat) - len(self._axes)
        if self._last is not None:
            size = math.sqrt(float(flat.square().sum() * self._last.square().sum())) or 1.0
            self.repeats = max(self.repeats, abs(float(flat @ self._last)) / size * math.sqrt(len(flat)))
        self._last = flat
        return made

    @property
    def noise(self) -> tuple[float, float]:
        """The noise multiplier as measured along the axes of nobody, and its standard error where it is as stated."""
        numbers = max(1, self._measured)
        return math.sqrt(self._squares / numbers), self.noise_multiplier / math.sqrt(2 * numbers)

    @property
    def part(self) -> tuple[float, float]:
        """What a drawn canary adds to the sum, in clipping norms: mean, and its standard error by the stated noise."""
        parts = np.concatenate(self._added)
        if not len(parts):
            return 0.0, math.inf
        return float(parts.mean()), self.noise_multiplier / math.sqrt(len(parts))


def likelihood_ratio(seen: NDArray[np.float64], noise: float, rate: float) -> NDArray[np.float64]:
    """log of the density of `seen` where a unit of norm 1 is in with chance q, over that where it never is; (m,)."""
    inside = math.log(rate) + (2 * seen - 1) / (2 * noise**2)
    if rate == 1.0:
        return inside
    both: NDArray[np.float64] = np.logaddexp(math.log1p(-rate), inside)
    return both
