"""A model's loss of the batch as a whole enters a step by the share of its rows, and is told when the step is taken."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from r1core.model.adapted import adapted_of
from r1core.model.adapter import load_adapter
from r1core.model.processes import ranks
from r1core.model.r1.routing import R1Router
from r1core.model.scores import logits_at
from r1core.recipe.strategy import Role, Strategy
from r1core.testing.tiny_r1 import model, tokens
from r1core.train.loop import Trainer


def trained(tiny: ModuleType, weight: float, **train: object) -> Trainer:
    base = model(vocab_size=400, router_aux_loss_coef=weight, router_z_loss_coef=0.0, sliding_window=64)
    run = tiny.trainer(base=base, layer=False, max_grad_norm=1e9, **train)
    for parameter in run.trainable:
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 20
    return run


def gradients(run: Trainer, tiny: ModuleType) -> list[torch.Tensor]:
    taken: list[torch.Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in run.trainable))
    tiny.one_step(run)
    return taken


@pytest.mark.parametrize("train", [{"packing": "shared_prefix"}, {"packing": "best_fit", "micro_batch_tokens": 20}])
def test_each_micro_batch_counts_by_its_supervised_tokens(tiny: ModuleType, train: dict[str, object]) -> None:
    heavy, light = trained(tiny, 50.0, **train), trained(tiny, 0.0, **train)
    reference = trained(tiny, 50.0, **train)
    reference.model.train()
    tokens = [int((batch.row < batch.rows).sum()) for batch in reference.feed.step(0).batches]
    total = torch.zeros(())
    for batch, share in zip(reference.feed.step(0).batches, tokens, strict=True):
        logits_at(reference.model, batch)
        total = total + share / sum(tokens) * reference.model.get_base_model().batch_loss()
    right = torch.autograd.grad(total, reference.trainable, allow_unused=True)
    found = zip(gradients(heavy, tiny), gradients(light, tiny), right, strict=True)
    moved = 0
    for with_it, without, wanted in found:
        expected = torch.zeros_like(with_it) if wanted is None else wanted
        assert torch.allclose(with_it - without, expected, atol=1e-5)
        moved += int(bool(expected.abs().max() > 1e-4))
    assert moved > len(right) / 3


FULL = Role(mode="full", learning_rate=1e-2)
WHOLE = Strategy(shallow_feed_forward=FULL, middle_feed_forward=FULL)


def routers(run: Trainer) -> list[R1Router]:
    return [one for one in run.model.modules() if isinstance(one, R1Router) and one.weight.requires_grad]


def test_biases_of_trained_routers_move_once_a_step_and_are_kept_with_them(tiny: ModuleType, tmp_path: Path) -> None:
    run = trained(tiny, 0.01, packing="best_fit", micro_batch_tokens=20, strategy=WHOLE)
    tiny.one_step(run)
    assert len(routers(run)) == 2
    for router in routers(run):
        assert router.bias_steps.abs().max() == 1
        assert not router.load.any()
    run.model.eval()
    ids = tokens(1, 20)
    adapted_of(run.model).save(tmp_path)
    base = model(vocab_size=400, router_aux_loss_coef=0.01, router_z_loss_coef=0.0, sliding_window=64)
    again = load_adapter(base, tmp_path).model.eval()
    assert torch.allclose(again(ids).logits, run.model(ids).logits, atol=1e-5)
    kept = [one.bias_steps for one in again.modules() if isinstance(one, R1Router)]
    assert any(torch.equal(routers(run)[0].bias_steps, one) for one in kept)


def test_a_frozen_routers_bias_stays(tiny: ModuleType) -> None:
    run = trained(tiny, 0.01, packing="best_fit")
    tiny.one_step(run)
    assert not routers(run)
    assert not any(one.bias_steps.any() for one in run.model.modules() if isinstance(one, R1Router))


@pytest.mark.slow
def test_two_processes_move_biases_as_one_does(tiny: ModuleType) -> None:
    def started() -> Trainer:
        return trained(tiny, 0.01, packing="best_fit", micro_batch_tokens=20, strategy=WHOLE)

    alone = started()
    tiny.one_step(alone)
    with ranks(2, lambda: started().step(0)):
        two = started()
        tiny.one_step(two)
    for one, other in zip(routers(alone), routers(two), strict=True):
        assert torch.equal(one.bias_steps, other.bias_steps)
