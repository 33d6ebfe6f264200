"""The shape of a privacy policy: clips each row's gradient. It adds no noise, so it gives NO privacy guarantee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1core import api

if TYPE_CHECKING:
    import torch

MAX_NORM = 1.0


class ClippedRows:
    """A training in which every row is a unit, and none weighs more than `MAX_NORM`."""

    def __init__(self, task: api.PrivateTask) -> None:
        rows = len(task.ids)
        self.row_gradients, self.weights, self.size = task.row_gradients, task.weights, min(task.batch_size, rows)
        self.total = task.steps or task.epochs * -(-rows // self.size)
        self.rows, self.step, self.sums = rows, task.step, [0.0 * w.detach() for w in task.weights]

    def draw(self) -> Sequence[Sequence[int]]:
        """The next rows, in order; a policy with a guarantee draws each unit by chance, and notes what that costs."""
        first = self.step * self.size
        self.step += 1
        return [[(first + n) % self.rows] for n in range(self.size)]

    def add(self, gradients: Sequence[torch.Tensor], units: Sequence[Sequence[int]]) -> None:
        """Here a row is a unit, so each gradient is clipped as it comes."""
        import torch

        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = MAX_NORM / norms.clamp(min=MAX_NORM)
        for total, each in zip(self.sums, gradients, strict=True):
            total += torch.einsum("r,r...->...", factors, each)

    def finish(self) -> list[torch.Tensor]:
        """The mean; a policy with a guarantee adds noise before."""
        made = [total / self.size for total in self.sums]
        self.sums = [0.0 * total for total in self.sums]
        return made

    def figures(self) -> Mapping[str, float]:
        """Nothing to tell of a step."""
        return {}

    def anchor(self) -> api.JSON:
        """No records are kept."""
        return None

    def card(self) -> Mapping[str, api.JSON]:
        """What the policy guarantees, and what not."""
        return {"max_norm": MAX_NORM, "noise": 0.0, "guarantee": "none"}

    def close(self) -> None:
        """Nothing is held."""


class Clipping:
    """The policy."""

    name = "privacy/clipped-rows"
    hooks_modules = False  # it takes the core's row gradients

    def begin(self, task: api.PrivateTask) -> api.PrivateTraining:
        """One training."""
        return ClippedRows(task)

    def fingerprint(self) -> str:
        """Changes with the norm."""
        return str(MAX_NORM)


@api.hookimpl
def privacy(ctx: api.Context) -> api.PrivacyPolicy | None:
    """The run's one policy; None would mean that this plugin brings none."""
    return Clipping()
