"""Training in rounds: between two rounds the adapter's weights are read, and set to what others made of them.

A round is the steps that `[train]` states. The order of rows and the schedule of the learning rate go over all rounds;
the optimiser begins each one anew, since its moments belong to weights that are no longer there. Under a privacy policy
all rounds are one training of the policy, so that what it guarantees holds over all of them.

Not covered: extra layers, pools, curricula, continued runs, roles trained in full, several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from r1core.api import JSON, PrivateTraining, UserError
from r1core.data import codec
from r1core.data.tokens import Encoded
from r1core.model.probe import Compute
from r1core.recipe.schema import Recipe
from r1core.train.continual import trained_weights
from r1core.train.loop import Trainer
from r1core.train.objective import objective_for
from r1core.train.order import order_of
from r1core.train.penalty import Penalty, Proximal
from r1core.train.private import PrivateTrainer, begun
from r1core.train.stage import base_on_device, check_rows_apart, encoded_rows, with_adapter
from r1core.workbench import Workbench

OnStep = Callable[[int, Mapping[str, float]], None]
_FIX = "leave it out of the recipe of the rounds"
_MORE = "begin anew with more rounds: what a training may spend is settled when it begins"


class PrivateRound(PrivateTrainer):
    """Some steps of a private training, which goes on afterwards: the policy is not let go at their end.

    `penalty` : of the weights alone; its gradient joins the private one just before the optimiser takes it.
    """

    def __init__(self, *given: Any, penalty: Penalty | None, **named: Any) -> None:
        super().__init__(*given, **named)
        if penalty is not None:

            def pull(*_: object) -> None:
                penalty.add()

            self.optimizer.register_step_pre_hook(pull)

    def run(self) -> None:
        """Train the steps of the round."""
        Trainer.run(self)


class RoundTraining:
    """One run's model and rows, trained round by round.

    Parameters
    ----------
    rounds : how many there will be. state : of the checkpoint that is taken up.
    """

    def __init__(
        self, bench: Workbench, compute: Compute, rounds: int, state: Mapping[str, JSON], on_step: OnStep
    ) -> None:
        refuse_combinations(bench.recipe)
        self.bench, self._on_step = bench, on_step
        torch.set_num_threads(compute.threads)
        model = base_on_device(bench, compute)
        self.adapted, self.layers = with_adapter(bench, model, compute)
        if list(self.layers.parameters()):
            raise UserError("extra layers in a training by rounds, where only the adapter's weights travel", fix=_FIX)
        self.rows: Sequence[Encoded] = encoded_rows(bench, "train")
        check_rows_apart(bench, self.adapted.model, self.rows, compute)
        train = bench.recipe.train
        self._whole = train.model_copy(update={"epochs": train.epochs * rounds, "steps": train.steps * rounds})
        self._order = order_of(self._whole, len(self.rows), bench.recipe.run.seed)
        self.private: PrivateTraining | None = None
        self._done = int(state.get("step", 0))  # of the policy's steps
        if bench.privacy is not None:
            recipe = bench.recipe.model_copy(update={"train": self._whole})
            examples = list(codec.read(bench.run.split("train"), bench.chain.kinds))
            self.private = begun(
                bench.privacy, recipe, self.adapted.model, self.layers, examples, bench.source.fingerprint(),
                bench.run.path, state,
            )  # fmt: skip
        total = self._order.total if self.private is None else self.private.total
        self.steps = total // rounds

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the trained weights by name, fp32."""
        return {name: value.float().cpu().numpy() for name, value in self.adapted.tensors().items()}

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the trained weights.

        Raises
        ------
        UserError : when names or shapes do not fit, or a value is not finite.
        """
        for name, value in weights.items():
            if not np.isfinite(value).all():
                raise UserError(f"adapter weights: {name} holds values that are not finite", fix="train again")
        self.adapted.load({name: torch.from_numpy(np.array(v)) for name, v in weights.items()})

    def fit(self, number: int, proximal: float) -> None:
        """Train round `number`, from 1; see `api.Learner.fit`."""
        weights = trained_weights(self.adapted, self.layers)
        penalty = Proximal(weights, proximal) if proximal else None
        trainer = self._trainer(penalty)
        first = (number - 1) * self.steps if self.private is None else self._done
        trainer.done, trainer.total = first, min(first + self.steps, trainer.total)
        if first >= trainer.total:
            raise UserError(f"round {number}: all {trainer.total} steps that were planned are taken", fix=_MORE)
        trainer.run()
        self._done = trainer.done

    def _trainer(self, penalty: Penalty | None) -> Trainer:
        bench, seed = self.bench, self.bench.recipe.run.seed
        given = (self.adapted.model, self.layers, self.rows, bench.chain.kinds, objective_for(bench), self._whole)
        if self.private is not None:
            return PrivateRound(
                *given, penalty=penalty, private=self.private, seed=seed, save=_nothing, on_step=self._on_step
            )
        return Trainer(*given, order=self._order, seed=seed, save=_nothing, on_step=self._on_step, penalty=penalty)

    def state(self) -> dict[str, JSON]:
        """What `state` of a training that goes on from here has to be."""
        return {} if self.private is None else {"step": self._done, "privacy": self.private.anchor()}

    def close(self) -> None:
        """Let the policy go."""
        if self.private is not None:
            self.private.close()


def _nothing(*state: object) -> None:
    """A round keeps no checkpoint of its steps: the next begins with other weights."""


def refuse_combinations(recipe: Recipe) -> None:
    """Refuse what training by rounds does not go with.

    Raises
    ------
    UserError : naming the key.
    """
    for found in _beside(recipe):
        raise UserError(f"{found} in a training by rounds", fix=_FIX)


def _beside(recipe: Recipe) -> Iterator[str]:
    if recipe.continual.from_ is not None:
        yield "continual.from: an earlier run that is continued"
    if recipe.curriculum.difficulty:
        yield f'curriculum.difficulty = "{recipe.curriculum.difficulty}"'
    if recipe.train.objective != "sft":
        yield f'train.objective = "{recipe.train.objective}"'
    if recipe.train.parallel != "ddp":
        yield f'train.parallel = "{recipe.train.parallel}"'
    for role, treatment in recipe.strategy.treatments().items():
        if treatment.mode == "full":
            yield f'strategy.{role}.mode = "full", so that more than an adapter is trained,'
