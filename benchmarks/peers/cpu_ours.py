"""r1core's side of the CPU comparison: the training loop on the rows of the file, in one process or several."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cpu_work import ALPHA, RANK, RATE, Clock, Work, measured, work_from


def train(work: Work, clock: Clock) -> float:
    from r1core.data.tokens import Encoded
    from r1core.model.adapter import add_adapter
    from r1core.model.layers import ExtraLayers
    from r1core.model.load import load_model
    from r1core.model.processes import ranks
    from r1core.model.resolve import resolve
    from r1core.recipe.schema import Model
    from r1core.recipe.training import Adapter, Train
    from r1core.train.loop import Trainer
    from r1core.train.objective import objective_of

    class InTurn:
        """The rows as they stand."""

        total = work.all_steps

        def rows(self, step: int) -> list[int]:
            return list(range(step * work.batch, (step + 1) * work.batch))

    base = load_model(resolve(Model(path=work.model), []), precision=work.precision, attention=work.attention)
    adapted = add_adapter(base, Adapter(rank=RANK, alpha=ALPHA), 0)
    layers = ExtraLayers(base, [], 0)
    encoded = [Encoded(str(i), tuple(p), tuple(r), ()) for i, (p, r) in enumerate(work.rows)]
    config = Train(
        batch_size=work.batch, steps=work.all_steps, learning_rate=RATE, schedule="constant", warmup_fraction=0.0,
        packing=work.packing, checkpoint_every=10**6, gradient_checkpointing=work.checkpointing,
    )  # fmt: skip
    losses: list[float] = []

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        losses.append(metrics["loss"])

    def trainer() -> Any:
        return Trainer(
            adapted.model, layers, encoded, {}, objective_of(config), config,
            order=InTurn(), seed=0, save=lambda *_: None, on_step=on_step,
        )  # fmt: skip

    with ranks(work.processes, lambda: trainer().run()):
        first = trainer()
        first.optimizer.register_step_post_hook(lambda *_: clock.tick())
        first.run()
    return losses[0]


if __name__ == "__main__":
    asked = work_from(sys.argv[1:])
    measured(asked, lambda clock: train(asked, clock))
