"""Elastic weight consolidation against autograd on its own formula, inside a step, and on two ranks."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from r1core.model.adapted import adapted_of
from r1core.model.processes import ranks
from r1core.train.continual import trained_weights
from r1core.train.loop import Trainer
from r1core.train.penalty import ElasticWeightConsolidation, Proximal


def moved(run: Trainer, seed: int, size: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in run.trainable:
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def named(run: Trainer) -> dict[str, torch.nn.Parameter]:
    return trained_weights(adapted_of(run.model), run.layers)


def with_penalty(tiny: ModuleType, strength: float = 3.0) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A trainer whose weights stand where a penalty is anchored, with a made-up Fisher information."""
    run: Trainer = tiny.trainer(max_grad_norm=1e9)
    moved(run, 0)
    weights = named(run)
    assert {id(p) for p in weights.values()} == {id(p) for p in run.trainable}
    generator = torch.Generator().manual_seed(5)
    fisher = {name: torch.rand(p.shape, generator=generator) for name, p in weights.items()}
    run.penalty = ElasticWeightConsolidation(weights, fisher, strength)
    return run, fisher


def test_value_and_gradient_are_those_of_the_formula(tiny: ModuleType) -> None:
    run, fisher = with_penalty(tiny, strength=3.0)
    weights = named(run)
    anchors = {name: p.detach().clone() for name, p in weights.items()}
    moved(run, 1)
    formula = sum(1.5 * (fisher[n] * (p - anchors[n]) ** 2).sum() for n, p in weights.items())
    expected = torch.autograd.grad(formula, list(weights.values()))
    assert run.penalty is not None
    given = run.penalty.add()  # where nothing else gave a gradient
    assert float(given) == pytest.approx(float(formula.detach()), rel=1e-5)
    for parameter, slope in zip(weights.values(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, slope, atol=1e-6)
    run.penalty.add()  # and on top of another
    for parameter, slope in zip(weights.values(), expected, strict=True):
        assert torch.allclose(parameter.grad, 2 * slope, atol=1e-6)


def test_it_enters_a_step_once_and_is_told(tiny: ModuleType) -> None:
    """The gradient that the optimiser is given is that of the loss plus that of the penalty, however rows are split."""
    for packing, most in (("shared_prefix", 0), ("best_fit", 17), ("none", 0)):
        taken: dict[bool, list[torch.Tensor]] = {}
        told = {}
        for on in (False, True):
            run, fisher = with_penalty(tiny)
            run.config = run.config.model_copy(update={"packing": packing, "micro_batch_tokens": most})
            moved(run, 1)
            if not on:
                run.penalty = None
            found: list[torch.Tensor] = []
            run.optimizer.register_step_pre_hook(
                lambda *_, run=run, found=found: found.extend(p.grad.clone() for p in run.trainable)
            )
            told[on] = tiny.one_step(run)
            taken[on] = found
        assert "penalty" not in told[False]
        assert told[True]["loss"] == pytest.approx(told[False]["loss"])
        by_id = {id(p): fisher[n] for n, p in named(run).items()}
        value = 0.0
        generator = torch.Generator().manual_seed(1)
        steps = [0.05 * torch.randn(p.shape, generator=generator) for p in run.trainable]
        for parameter, plain, both, step in zip(run.trainable, taken[False], taken[True], steps, strict=True):
            slope = 3.0 * by_id[id(parameter)] * step
            assert torch.allclose(both, plain + slope, atol=2e-5)
            value += float((slope * step).sum()) / 2
        assert told[True]["penalty"] == pytest.approx(value, rel=1e-3)


def test_two_ranks_end_where_one_does(tiny: ModuleType) -> None:
    alone, _ = with_penalty(tiny)
    alone.run()
    shared, _ = with_penalty(tiny)

    def rank() -> Trainer:
        made, _ = with_penalty(tiny)
        return made

    with ranks(2, lambda: rank().run()):
        shared = rank()
        shared.run()
    for one, other in zip(alone.trainable, shared.trainable, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_strong_penalty_holds_the_weights(tiny: ModuleType) -> None:
    far = {}
    for strength in (0.0, 1e4):
        run, _ = with_penalty(tiny, strength)
        before = [p.detach().clone() for p in run.trainable]
        run.run()
        far[strength] = sum(float((p - b).detach().square().sum()) for p, b in zip(run.trainable, before, strict=True))
    assert far[1e4] < far[0.0] / 4


def test_fisher_information_of_other_weights_is_refused(tiny: ModuleType) -> None:
    run = tiny.trainer()
    with pytest.raises(ValueError, match="no Fisher information of"):
        ElasticWeightConsolidation(named(run), {}, 1.0)


def test_a_proximal_term_is_half_mu_times_the_squared_distance(tiny: ModuleType) -> None:
    run: Trainer = tiny.trainer(max_grad_norm=1e9)
    moved(run, 0)
    weights = named(run)
    start = {name: p.detach().clone() for name, p in weights.items()}
    term = Proximal(weights, 0.7)
    moved(run, 1)
    formula = 0.35 * sum(((p - start[n]) ** 2).sum() for n, p in weights.items())
    expected = torch.autograd.grad(formula, list(weights.values()))
    assert float(term.add()) == pytest.approx(float(formula.detach()), rel=1e-5)
    for parameter, slope in zip(weights.values(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, slope, atol=1e-6)
