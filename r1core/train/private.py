"""Training under a privacy policy: the loop's step with the gradient of each row taken apart and given to the policy.

The policy draws the units of a step, a unit's loss is the mean over its records of each record's mean, and the policy
alone makes a gradient of the row gradients; nothing else touches the optimiser. Nothing is told of a step that depends
on the records in it: no loss, no number of rows, no names. A step without a unit takes the optimiser step all the same.

Not covered: how long a step takes, which depends on how many units were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from r1core.api import Example, PrivacyPolicy, PrivateTask, PrivateTraining, R1Error, SpanKind
from r1core.data import codec
from r1core.data.padding import by_length, side_by_side
from r1core.data.tokens import Encoded
from r1core.model.adapted import LanguageModel
from r1core.model.layers import ExtraLayers
from r1core.model.row_gradients import RowGradients
from r1core.recipe.schema import Recipe
from r1core.recipe.training import Train
from r1core.train.figures import OnTheWay
from r1core.train.loop import Groups, NonFiniteLoss, State, Trainer
from r1core.train.objective import Objective
from r1core.train.optimizer import adamw, set_rates
from r1core.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Drawn:
    """The order of a private training: its rows are drawn by the policy as the steps come."""

    total: int

    def rows(self, step: int) -> Sequence[int]:
        """Refused: who knew the rows of a step beforehand would know who is in it."""
        raise R1Error(f"step {step}: the rows of a private training are drawn when the step is taken")


class PrivateTrainer(Trainer):
    """A `Trainer` whose gradients a policy makes.

    Parameters
    ----------
    private : the training, as the policy began it.
    """

    def __init__(
        self,
        model: LanguageModel,
        layers: ExtraLayers,
        rows: Sequence[Encoded],
        kinds: Mapping[str, SpanKind],
        objective: Objective,
        config: Train,
        *,
        private: PrivateTraining,
        seed: int,
        save: Callable[[int, Groups, State], None],
        on_step: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        super().__init__(
            model, layers, rows, kinds, objective, config,
            order=Drawn(private.total), seed=seed, save=save, on_step=on_step,
        )  # fmt: skip
        self.private = private
        self._moved = False  # whether any row has had a gradient yet
        self._told: tuple[int, OnTheWay, Mapping[str, float]] | None = None  # of the last step

    @property
    def replay(self) -> None:
        """Passes are not recorded: their shapes differ with the draw."""
        return None

    def run(self) -> None:
        """Train to the last step, and let the policy go."""
        try:
            super().run()
        finally:
            self.private.close()

    def step(self, step: int) -> None:
        """One optimiser step. Its figures reach `on_step` at once on a CPU, with the next step on a GPU.

        Raises
        ------
        R1Error : when no row of the first units that are drawn has any gradient: the run would train nothing, and spend
            for it.
        NonFiniteLoss : when the gradient of this step or the one before is not finite.
        """
        units = self.private.draw()
        if self.casts is not None:
            self.casts.refresh()
        for some in self._passes(units):
            self._pass(some)
        for weight, gradient in zip(self.trainable, self.private.finish(), strict=True):
            weight.grad = gradient
        norm = torch.nn.utils.get_total_norm([w.grad for w in self.trainable if w.grad is not None])
        self.settle()
        set_rates(self.optimizer, self.schedule.factor(step))
        rate = self.optimizer.param_groups[0]["lr"]
        self._told = step + 1, OnTheWay(norm[None]), {"learning_rate": rate, **self.private.figures()}
        if norm.device.type == "cpu":
            self.settle()
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # as in `Trainer.step`
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.cpu_seconds += self._used()

    def settle(self) -> None:
        """Read the norm of the last step's private gradient, refuse one that is not finite, and tell.

        Raises
        ------
        NonFiniteLoss : with the step; the optimiser has not taken it.
        """
        if self._told is None:
            return
        (step, figures, told), self._told = self._told, None
        (norm,) = figures.read()
        if not math.isfinite(norm):
            raise NonFiniteLoss(f"step {step}: the private gradient is not finite; nothing of this step is saved")
        self.on_step(step, {**told, "grad_norm": norm})

    def state(self) -> dict[str, Any]:
        """With what ties the checkpoint to the policy's own records."""
        return {**super().state(), "privacy": self.private.anchor()}

    def _passes(self, units: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """The units of each pass; all rows of a unit stand in one."""
        lengths = [[self.rows[row].length for row in unit] for unit in units]
        capacity = self.config.micro_batch_tokens
        parts = [[i] for i in range(len(units))] if self.config.packing == "none" else by_length(lengths, capacity)
        for part in parts:
            yield [units[i] for i in part]

    def _pass(self, units: Sequence[Sequence[int]]) -> None:
        rows = [self.rows[row] for unit in units for row in unit]
        device = self.model.device
        shares = [1.0 / (len(unit) * self.objective.weight(self.rows[row])) for unit in units for row in unit]
        batch = side_by_side(rows, self.kinds).to(device)
        read = self.read  # found out on a row of its own, the first time
        with self.private.row_gradients.of(len(rows)), self.layers.using(batch.features):
            losses = self.objective.loss(read(batch), batch)
            (losses * torch.tensor(shares, device=device)).sum().backward()
        gradients = self.private.row_gradients.take()
        if not self._moved:
            self._moved = any(bool(gradient.any()) for gradient in gradients)
            if not self._moved:
                raise R1Error("the first batch gave a zero gradient: nothing would be trained; check adapter.targets")
        self.private.add(gradients, units)


def private_training(
    bench: Workbench, model: LanguageModel, layers: ExtraLayers, state: Mapping[str, Any]
) -> PrivateTraining:
    """Let the run's policy begin its training, or go on from a checkpoint's `state`.

    Raises
    ------
    UserError : for trained weights without an exact rule for row gradients, and what the policy refuses.
    """
    assert bench.privacy is not None
    examples = list(codec.read(bench.run.split("train"), bench.chain.kinds))
    source = bench.source.fingerprint()
    return begun(bench.privacy, bench.recipe, model, layers, examples, source, bench.run.path, state)


def begun(
    policy: PrivacyPolicy,
    recipe: Recipe,
    model: LanguageModel,
    layers: ExtraLayers,
    examples: Sequence[Example],
    source: str,
    run: Path,
    state: Mapping[str, Any] = MappingProxyType({}),
) -> PrivateTraining:
    """A training of these examples under a policy; see `api.PrivateTask`."""
    weights = [p for group in adamw(model, layers, recipe.train).param_groups for p in group["params"]]
    names = {id(parameter): name for tree in (layers, model) for name, parameter in tree.named_parameters()}
    return policy.begin(
        PrivateTask(
            model=model,
            weights=weights,
            ids=[example.id for example in examples],
            groups=[example.group for example in examples],
            source=source,
            batch_size=recipe.train.batch_size,
            epochs=recipe.train.epochs,
            steps=recipe.train.steps,
            row_gradients=RowGradients(model, [(names[id(weight)], weight) for weight in weights]),
            run=run,
            anchor=state.get("privacy"),
            step=int(state.get("step", 0)),
        )
    )
