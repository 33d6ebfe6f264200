"""The policy `dp/units`: DP-SGD (Abadi et al. 2016, algorithm 1) with units for records, accounted for in a ledger.

A step draws each unit with one and the same probability, sums their clipped gradients, adds Gaussian noise and divides
by the number of units that a step has on average, which depends on nobody. The ledger counts the step before it is
drawn.
"""

# N = units of the data set

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from r1core import api
from r1core_dp import card
from r1core_dp.accounting import Phase, epsilon_of, noise_for
from r1core_dp.config import DpConfig
from r1core_dp.entropy import Fill, buffer_of, chosen, normal, normal_bits, system
from r1core_dp.ledger import Declared, Ledger, folder_of

if TYPE_CHECKING:
    import torch

THREADS = 4  # that draw random bits while a GPU computes


def units_of(task: api.PrivateTask, config: DpConfig) -> dict[str, list[int]]:
    """The rows of each unit, of a unit with more than `max_records` the first ones.

    Raises
    ------
    UserError : for a row without a group, where groups are the units.
    """
    found: dict[str, list[int]] = {}
    for row, (name, group) in enumerate(zip(task.ids, task.groups, strict=True)):
        if config.unit == "group" and group is None:
            raise api.UserError(
                f"row {name!r} has no group, so nobody can tell whose it is",
                fix='set data.columns.group to the column of the patient or client id, or plugins.dp.unit = "record"',
            )
        found.setdefault(str(group) if config.unit == "group" else name, []).append(row)
    return {unit: rows[: config.max_records] for unit, rows in found.items()}


class UnitPolicy:
    """The policy of a recipe."""

    name = "dp/units"

    def __init__(self, config: DpConfig, entropy: Fill = system) -> None:
        self.config, self._entropy = config, entropy
        self.hooks_modules = config.engine == "opacus"

    def begin(self, task: api.PrivateTask) -> Training:
        """Open the ledger, settle how much noise the steps that are left need, and note the plan."""
        return Training(self.config, task, self._entropy)

    def fingerprint(self) -> str:
        """Over what decides how training goes; where the ledger stands does not."""
        stated = self.config.model_dump(mode="json", exclude={"ledger", "budget"})
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


class Training:
    """A training under the policy; see `api.PrivateTraining`.

    Raises
    ------
    UserError : for rows without units, what the ledger refuses, and a budget that the training would exceed.
    """

    def __init__(self, config: DpConfig, task: api.PrivateTask, entropy: Fill) -> None:
        self.config, self.task, self._entropy = config, task, entropy
        units = units_of(task, config)
        self._rows = list(units.values())
        self.number = len(units)  # N
        self.total = task.steps or task.epochs * math.ceil(self.number / task.batch_size)
        self.sample_rate = min(1.0, task.batch_size / self.number)
        self.delta = config.delta if config.delta is not None else self.number**-1.1
        self.row_gradients = task.row_gradients if config.engine == "r1core" else _hooked(task)
        self.step = task.step
        self._sum = _zeros(task.weights)
        self._noise = Noise(self._sum, entropy)
        self._made, weights = _zeros(task.weights), task.weights
        parts = self._made.split([weight.numel() for weight in weights])
        self._parts = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        self.most_records = max(map(len, self._rows))
        self.largest_group = _largest_group(task)
        self.run = _run_name(task.run)
        budget = config.epsilon if config.budget is None else config.budget
        declared = Declared(task.source, config.unit, self.delta, budget)
        named = (group if group is not None else name for name, group in zip(task.ids, task.groups, strict=True))
        whose = {f"{config.namespace}/{one}" for one in named}
        self.ledger = Ledger(folder_of(config.ledger), config.dataset_id, declared, whose)
        try:
            if isinstance(task.anchor, Mapping):
                self.ledger.require(str(task.anchor["ledger_head"]), "the checkpoint")
            self.noise_multiplier = self._settled(budget)
        except BaseException:
            self.ledger.close()
            raise

    def _settled(self, budget: float) -> float:
        """The noise with which the steps that are left keep to epsilon and budget; the plan is noted.

        Raises
        ------
        UserError : where they cannot.
        """
        mine, left = self.ledger.spent(self.run), self.total - self.task.step
        noise = noise_for(self.config.epsilon, self.delta, self.sample_rate, left, mine)
        planned = Phase(noise, self.sample_rate, left)
        every = self.ledger.spent()
        if len(every) > len(mine) or budget < self.config.epsilon:
            spent, after = (epsilon_of(phases, self.delta).value for phases in (every, [*every, planned]))
            if after > budget:
                raise api.UserError(
                    f"{self.config.dataset_id}: {spent:.3f} of its budget of {budget:g} is spent, "
                    f"and with this training it would be {after:.3f} (delta {self.delta:.3g})",
                    fix="a smaller plugins.dp.epsilon or fewer steps; the budget of a data set is never raised",
                )
        self.ledger.plan(self.run, self.task.run.absolute(), planned, self.config.max_grad_norm)
        return noise

    def draw(self) -> Sequence[Sequence[int]]:
        """Count the step, then draw its units."""
        if self.step >= self.total:
            raise api.UserError(f"the {self.total} steps that were planned are done", fix="begin another training")
        self.step += 1
        self.ledger.step(self.run, self.step)
        self._noise.begin()
        drawn = chosen(self.number, self.sample_rate, self._entropy)
        return [rows for rows, taken in zip(self._rows, drawn.tolist(), strict=True) if taken]

    def add(self, gradients: Sequence[torch.Tensor], units: Sequence[Sequence[int]]) -> None:
        """Clip each unit's gradient and add it."""
        from r1core_dp.clipping import add_clipped, by_unit

        add_clipped(self._sum, by_unit(gradients, [len(rows) for rows in units]), self.config.max_grad_norm)

    def finish(self) -> list[torch.Tensor]:
        """The sum with noise, over the number of units that a step has on average, once the step's line is on disk."""
        self.ledger.settle()
        import torch

        deviation, size = self.noise_multiplier * self.config.max_grad_norm, self.sample_rate * self.number
        torch.add(self._sum, self._noise.take(), alpha=deviation, out=self._made).div_(size)
        self._sum.zero_()
        return self._parts

    def figures(self) -> Mapping[str, float]:
        """The noise; what was spent stands in the card."""
        return {"noise_multiplier": self.noise_multiplier}

    def anchor(self) -> api.JSON:
        """The run's name in the ledger, and the ledger's head."""
        return {"run": self.run, "ledger_head": self.ledger.head}

    def card(self) -> Mapping[str, api.JSON]:
        """See `card.made`."""
        return card.made(self)

    def close(self) -> None:
        """Let other trainings draw on the ledger."""
        self._noise.close()
        self.ledger.close()


class Noise:
    """Standard normal numbers for a step; where a GPU computes the step, their bits are drawn meanwhile."""

    def __init__(self, like: torch.Tensor, entropy: Fill) -> None:
        self._number, self._device, self._entropy = like.numel(), like.device, entropy
        self._pool = ThreadPoolExecutor(THREADS, "noise") if like.is_cuda else None
        self._bits: torch.Tensor | None = None
        self._filling: list[Future[None]] = []

    def begin(self) -> None:
        """Begin to draw the bits of this step's noise."""
        self._bits = normal_bits(self._number, pinned=self._pool is not None)
        room = buffer_of(self._bits)
        if self._pool is None:
            self._entropy(room)
            return
        size = -(-len(room) // THREADS)
        parts = [room[first : first + size] for first in range(0, len(room), size)]
        self._filling = [self._pool.submit(self._entropy, part) for part in parts]

    def take(self) -> torch.Tensor:
        """The noise, (P,) float32; never the same twice."""
        if self._bits is None:
            self.begin()
        for part in self._filling:
            part.result()
        bits, self._bits, self._filling = self._bits, None, []
        assert bits is not None
        return normal(self._number, bits, self._device)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _zeros(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """For all weights one behind another, (P,) fp32."""
    import torch

    return torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)


def _hooked(task: api.PrivateTask) -> api.RowGradients:
    from r1core_dp.opacus_rows import OpacusRows

    return OpacusRows(task.model, task.weights)


def _largest_group(task: api.PrivateTask) -> int:
    counts: dict[str, int] = {}
    for group in task.groups:
        if group is not None:
            counts[group] = counts.get(group, 0) + 1
    return max(counts.values(), default=0)


def _run_name(run: Path) -> str:
    """The name of a run in the ledger, kept in the run: what an interrupted training spent counts as its own."""
    path = run / "privacy" / "ledger_run.json"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps({"run": uuid.uuid4().hex}), encoding="utf-8")
        aside.replace(path)
    return str(json.loads(path.read_text("utf-8"))["run"])
