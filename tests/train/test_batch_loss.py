"""A model's loss of the batch as a whole enters a step by the share of its rows, and is told when the step is taken."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from r1core.model.scores import logits_at
from r1core.testing.tiny_r1 import model
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


def test_biases_move_once_a_step(tiny: ModuleType) -> None:
    run = trained(tiny, 0.01, packing="best_fit", micro_batch_tokens=20)
    routers = [block.router for block in run.model.get_base_model().feed_forwards()]
    tiny.one_step(run)
    for router in routers:
        assert router.bias_steps.abs().max() == 1
        assert not router.load.any()
