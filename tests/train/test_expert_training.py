"""An adapter on experts in the training loop: checkpointed, and over two processes, it learns what one process does."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from r1core.model.processes import ranks
from r1core.testing.tiny_r1 import model
from r1core.train.loop import Trainer

ROUNDING = 2e-4
"""Of weights that the steps move by up to 1e-2: where a gradient is all but zero, Adam makes much of its rounding."""


def ended(tiny: ModuleType, world: int, **options: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and trained weights of a training by so many processes."""
    losses: list[float] = []

    def started(told: object = lambda *_: None) -> Trainer:
        given = {"data": tiny.rows(7), "layer": False, "packing": "none", "targets": ["q_proj", "experts"]}
        return tiny.trainer(on_step=told, base=model(vocab_size=400, sliding_window=64), **{**given, **options})

    def ran(run: Trainer) -> Trainer:
        run.run()
        return run

    with ranks(world, lambda: tiny.gathered(ran(started()))):
        run = ran(started(lambda _, told: losses.append(told["loss"])))
        return losses, tiny.gathered(run)


def same(tiny: ModuleType, world: int, **options: object) -> None:
    (one, ends), (other, others) = ended(tiny, 1), ended(tiny, world, **options)
    assert other == pytest.approx(one, rel=1e-4)
    assert one[-1] < one[0]
    assert ends.keys() == others.keys()
    assert sum(".experts." in name for name in ends) == 8
    for name, value in ends.items():
        assert torch.allclose(value, others[name], rtol=0, atol=ROUNDING), name


def test_gradient_checkpointing_changes_nothing(tiny: ModuleType) -> None:
    same(tiny, 1, gradient_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_does(tiny: ModuleType, cut: bool) -> None:
    same(tiny, 2, cut=cut)
