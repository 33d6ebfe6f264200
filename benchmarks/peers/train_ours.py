"""r1core's side of the training comparison: `train_ours.py --shape 135m --rows 16 [--variant default|uncompiled]`.

The variants `ddp` and `fsdp2` run behind `torchrun`, where `--rows` are those of all processes together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import torch
from workload import ALPHA, LINEAR, RANK, RATE, Clock, Work, measured, model, rows, work_from

VARIANTS = ("default", "uncompiled", "checkpointed", "ddp", "fsdp2")


def train(work: Work, clock: Clock) -> float:
    from r1core.data.tokens import Encoded
    from r1core.model import flash_rows
    from r1core.model.adapter import add_adapter
    from r1core.model.layers import ExtraLayers
    from r1core.recipe.strategy import Strategy
    from r1core.recipe.training import Adapter, Train
    from r1core.train.feed import layout_of
    from r1core.train.loop import Trainer
    from r1core.train.objective import objective_of
    from r1core.train.order import order_of

    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if world > 1:
        from r1core.train.launched import Crew

        Crew()
    base = model(work, to="cpu" if work.variant == "fsdp2" else "").requires_grad_(False)
    adapted = add_adapter(base, Adapter(rank=RANK, alpha=ALPHA, targets=LINEAR), 0, strategy=Strategy())
    encoded = [Encoded(str(i), (ids[0],), (*ids[1:], 2), ()) for i, ids in enumerate(rows(work))]
    config = Train(
        batch_size=work.rows, steps=work.all_steps, learning_rate=RATE, schedule="constant", packing="best_fit",
        checkpoint_every=10**6, compile="off" if work.variant == "uncompiled" else "auto",
        gradient_checkpointing=work.variant == "checkpointed",
    )  # fmt: skip
    losses: list[float] = []

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        losses.append(metrics["loss"])

    layers = ExtraLayers(base, [], 0)
    if work.variant == "fsdp2":
        from r1core.model.sharding import shard

        shard(adapted.model, torch.device("cuda" if cuda else "cpu"), world)
    if layout_of(config, encoded, base.device, base.dtype).flash:
        flash_rows.use(base)
    trainer = Trainer(
        adapted.model, layers, encoded, {}, objective_of(config), config,
        order=order_of(config, len(encoded), 0), seed=0, save=lambda *_: None, on_step=on_step,
    )  # fmt: skip
    trainer.optimizer.register_step_post_hook(lambda *_: clock.tick())
    trainer.run()
    return losses[-1] if losses else float("nan")  # only the first process is told


def named(work: Work) -> str:
    """The system's name; it says so where a kernel of another distribution is used."""
    from r1core.model import flash4

    quick = torch.cuda.is_available() and flash4.usable(torch.device("cuda"))
    return f"r1core {work.variant}" + (f" with {flash4.DISTRIBUTION}" if quick else "")


if __name__ == "__main__":
    asked = work_from(sys.argv[1:], VARIANTS)
    measured(asked, named(asked), lambda clock: train(asked, clock))
