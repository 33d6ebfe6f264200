"""Two ranks against one over many steps: the same losses and the same final weights, to rounding."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.model.processes import ranks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
STEPS = 36
RATE = 2e-3  # at 1e-2 the tiny model's training is unstable, and any two ways of rounding part
CLOSE = 1e-5
"""Largest relative difference of a loss, and largest difference of a weight."""


def trained(tiny: ModuleType, world: int, **options: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final adapter and layers of a run on so many ranks; the last batch of an epoch holds one row."""
    losses: list[float] = []
    told: dict[str, Any] = {
        "data": tiny.rows(9),
        "steps": STEPS,
        "learning_rate": RATE,
        "layer_learning_rate": RATE,
        **options,
    }
    with ranks(world, lambda: tiny.trainer(**told).run()):
        trainer = tiny.trainer(on_step=lambda step, metrics: losses.append(metrics["loss"]), **told)
        assert trainer.together.world == world
        trainer.run()
        tensors = tiny.flat(trainer.tensors())
    return losses, {name: t for name, t in tensors.items() if not name.startswith("optimizer/")}


@pytest.mark.parametrize(
    "options",
    [
        {"packing": "shared_prefix"},
        {"packing": "best_fit", "micro_batch_tokens": 17},
        {"packing": "none", "loss": True},
    ],
    ids=["shared_prefix", "best_fit, accumulated", "none, with the layer's own loss"],
)
def test_two_ranks_follow_the_curve_of_one(tiny: ModuleType, options: dict[str, Any]) -> None:
    (one, ends), (two, others) = (trained(tiny, world, **options) for world in (1, 2))
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, rel=CLOSE)
    assert min(one) < one[0] - 0.1, "the runs learn something"
    assert ends.keys() == others.keys()
    for name, tensor in ends.items():
        assert torch.allclose(tensor, others[name], rtol=0, atol=CLOSE), name
