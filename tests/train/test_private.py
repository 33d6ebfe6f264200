"""Training under a policy: what the policy is given, what it alone decides, and what is told of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.api import JSON, R1Error
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.row_gradients import RowGradients
from r1core.recipe.training import Adapter, Train
from r1core.testing.tiny import tiny_model
from r1core.train.objective import SupervisedFineTuning
from r1core.train.optimizer import adamw
from r1core.train.private import PrivateTrainer

UNITS: list[list[int]] = [[0, 3, 4], [1], [2, 5], [6, 7, 8, 9], [10]]


class Summing:
    """A training that gives the plain mean over units, and remembers what it was given."""

    def __init__(self, draws: Sequence[Sequence[Sequence[int]]], row_gradients: RowGradients) -> None:
        self.draws, self.row_gradients, self.total = list(draws), row_gradients, len(draws)
        self.units: list[list[torch.Tensor]] = []
        self.closed = 0

    def draw(self) -> Sequence[Sequence[int]]:
        self.units = []
        return self.draws.pop(0)

    def add(self, gradients: Sequence[torch.Tensor], units: Sequence[Sequence[int]]) -> None:
        first = 0
        for rows in units:
            self.units.append([gradient[first : first + len(rows)].sum(0) for gradient in gradients])
            first += len(rows)

    def finish(self) -> list[torch.Tensor]:
        zeros = [torch.zeros_like(weight) for weight in self.row_gradients.weights]
        return [sum((unit[at] for unit in self.units), zero) / 4 for at, zero in enumerate(zeros)]

    def figures(self) -> Mapping[str, float]:
        return {"noise_multiplier": 0.0}

    def anchor(self) -> JSON:
        return {"head": "abc"}

    def card(self) -> Mapping[str, JSON]:
        return {}

    def close(self) -> None:
        self.closed += 1


def trainer(tiny: ModuleType, draws: Sequence[Sequence[Sequence[int]]], **train: Any) -> PrivateTrainer:
    model = add_adapter(tiny_model().requires_grad_(False), Adapter(rank=4), seed=0).model
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=draw) / 20
    layers = ExtraLayers(model.base_model.model, [], seed=0)
    config = Train(**{"batch_size": 4, "learning_rate": 1e-2, "packing": "padded", **train})
    weights = [p for group in adamw(model, layers, config).param_groups for p in group["params"]]
    names = {id(p): name for name, p in model.named_parameters()}
    private = Summing(draws, RowGradients(model, [(names[id(p)], p) for p in weights]))
    told: list[tuple[int, Mapping[str, float]]] = []
    made = PrivateTrainer(
        model, layers, tiny.rows(), tiny.KINDS, SupervisedFineTuning(), config,
        private=private, seed=7, save=lambda *_: None, on_step=lambda *given: told.append(given),
    )  # fmt: skip
    made.told = told  # type: ignore[attr-defined]
    return made


def naive(run: PrivateTrainer, units: Sequence[Sequence[int]]) -> list[list[torch.Tensor]]:
    """The gradient of each unit: the mean over its records of each record's mean, each record alone."""
    found = []
    for unit in units:
        loss = torch.zeros(())
        for row in (run.rows[i] for i in unit):
            logits = run.model(input_ids=torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(row.response)) / len(unit)
        found.append(list(torch.autograd.grad(loss, run.trainable)))
    return found


def step_of(run: PrivateTrainer) -> list[torch.Tensor]:
    """What the optimiser is given in the next step."""
    taken: list[torch.Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in run.trainable))
    run.step(0)
    return taken


@pytest.mark.parametrize(
    "how",
    [{}, {"micro_batch_tokens": 24}, {"micro_batch_tokens": 1}, {"gradient_checkpointing": True}, {"packing": "none"}],
    ids=["one pass", "some passes", "a pass a unit", "checkpointed", "none"],
)
def test_the_policy_is_given_each_units_gradient_however_passes_are_cut(tiny: ModuleType, how: dict[str, Any]) -> None:
    run = trainer(tiny, [UNITS], **how)
    expected = naive(run, UNITS)
    taken = step_of(run)
    got = sorted((unit[0].sum().item(), unit) for unit in run.private.units)  # type: ignore[attr-defined]
    wanted = sorted((unit[0].sum().item(), unit) for unit in expected)
    assert len(got) == len(UNITS)
    for (_, ours), (_, theirs) in zip(got, wanted, strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    for at, gradient in enumerate(taken):
        assert float((gradient - sum(unit[at] for unit in expected) / 4).abs().max()) <= 1e-6


def test_nothing_is_told_of_a_step_that_depends_on_its_records(tiny: ModuleType) -> None:
    run = trainer(tiny, [UNITS])
    run.step(0)
    ((step, told),) = run.told  # type: ignore[attr-defined]
    assert step == 1
    assert set(told) == {"learning_rate", "grad_norm", "noise_multiplier"}


def test_a_step_without_a_unit_is_taken(tiny: ModuleType) -> None:
    run = trainer(tiny, [UNITS, [], UNITS])
    run.run()
    assert [step for step, _ in run.told] == [1, 2, 3]  # type: ignore[attr-defined]
    assert run.told[1][1]["grad_norm"] == 0.0  # type: ignore[attr-defined]
    assert run.private.closed == 1  # type: ignore[attr-defined]
    assert run.state()["privacy"] == {"head": "abc"}


def test_a_training_that_would_train_nothing_stops_before_noise_hides_it(tiny: ModuleType) -> None:
    run = trainer(tiny, [[], UNITS])
    for parameter in run.trainable:
        parameter.data.zero_()
    run.step(0)
    with pytest.raises(R1Error, match="first batch gave a zero gradient"):
        run.step(1)
    run = trainer(tiny, [UNITS])
    run.private.draw = lambda: (_ for _ in ()).throw(KeyError("x"))  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        run.run()
    assert run.private.closed == 1  # type: ignore[attr-defined]


def test_nobody_knows_the_rows_of_a_step_beforehand(tiny: ModuleType) -> None:
    with pytest.raises(R1Error, match="are drawn when the step is taken"):
        trainer(tiny, [UNITS]).order.rows(0)
